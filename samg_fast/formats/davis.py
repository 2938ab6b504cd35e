"""DAVIS: indexed pictures, the number of the object at each pixel, in DAVIS's colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

from samg_fast.files import output_folder, replacing
from samg_fast.formats.writer import Job, Result, Writer

__all__ = ["PALETTE", "DavisWriter"]


def _palette() -> list[int]:
    """Return the colours of PASCAL VOC, which DAVIS 2017 has too: bits of the number, spread over red, green, blue."""
    numbers = np.arange(256)
    channels = [sum(((numbers >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    palette: list[int] = np.stack(channels, axis=1).ravel().tolist()
    return palette


PALETTE: list[int] = _palette()
"""768 numbers: red, green and blue of each of 256 objects, as Pillow takes them."""


class DavisWriter(Writer):
    """``davis/FRAME.png``."""

    made = ("davis",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._folder = output_folder(job.folder / "davis")

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        picture = Image.fromarray(result.seen.ids)
        picture.putpalette(PALETTE)
        with replacing(self._folder / f"{result.name}.png") as temporary:
            picture.save(temporary)
