"""Clips and small videos for the tests of environments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


class Flat:
    """A clip of one colour that never changes."""

    def __init__(self, name: str, color: Sequence[int]) -> None:
        self.name, self.color = name, color

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return picture `t`."""
        return np.full((8, 8, 3), self.color, np.uint8)


def write_video(path: Path, greys: Sequence[int]) -> None:
    """Write a video of flat grey pictures, one for each of `greys`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for grey in greys:
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
