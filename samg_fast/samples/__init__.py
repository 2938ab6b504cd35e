"""Rendered frames with exact ground truth that ship inside the package; reading them needs NumPy alone.

They let the demonstration, the latency benchmark and the tests run where nothing can be rendered.
`samg_fast.envs.clip_pack` renders such packs.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Frame, Mask
from samg_fast.errors import FileError
from samg_fast.files import write_bytes

__all__ = ["FORMAT", "SHIPPED", "Pack", "PackTask", "load_pack", "save_pack"]

SHIPPED: Final = Path(__file__).parent / "demo.npz"
"""The pack inside the package."""

FORMAT: Final = 1


@dataclass(frozen=True)
class PackTask:
    """What a pack has of one task.

    Attributes
    ----------
    reference : (H, W, 3) uint8
        One clean image in the original setting, of another episode than the frames.
    reference_mask : (H, W) bool
        Its ground truth.
    settings : mapping
        Setting → (frames, masks): consecutive frames of one episode, (T, H, W, 3) uint8 RGB, and their ground truth,
        (T, H, W) bool. Every setting shows the same motion.
    """

    reference: Frame
    reference_mask: Mask
    settings: Mapping[str, tuple[Frame, Mask]]


@dataclass(frozen=True)
class Pack:
    """A clip pack.

    Attributes
    ----------
    tasks : mapping
        Name of a task → `PackTask`.
    about : mapping
        How it was made: seed, size, frames and versions.
    """

    tasks: Mapping[str, PackTask]
    about: Mapping[str, Any] = field(default_factory=dict)


def save_pack(pack: Pack, path: str | PathLike[str]) -> None:
    """Write a pack, whole or not at all.

    Parameters
    ----------
    pack : Pack
        What to write.
    path : path
        An ``.npz`` file, replaced if it is there.

    Raises
    ------
    FileError
        It cannot be written there.
    """
    arrays: dict[str, NDArray[Any]] = {"about": np.array(json.dumps({**pack.about, "tasks": list(pack.tasks)}))}
    for name, task in pack.tasks.items():
        arrays[f"{name}/reference/frames"] = task.reference
        arrays[f"{name}/reference/masks"] = np.packbits(task.reference_mask, axis=-1)
        for setting, (frames, masks) in task.settings.items():
            # What stays as it was in the frame before becomes zero, which packs far better.
            arrays[f"{name}/{setting}/frames"] = np.diff(frames, axis=0, prepend=np.zeros_like(frames[:1]))
            arrays[f"{name}/{setting}/masks"] = np.packbits(masks, axis=-1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def load_pack(path: str | PathLike[str] | None = None) -> Pack:
    """Read a pack; needs neither MuJoCo nor OpenGL.

    Parameters
    ----------
    path : path
        The pack's file; by default the one that ships with the package.

    Returns
    -------
    Pack
        Its tasks in the order they were built in.

    Raises
    ------
    FileError
        The file is not there, or is not a whole clip pack of this version.
    """
    path = SHIPPED if path is None else Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != FORMAT:
                raise FileError(f"the clip pack {path} has format {about['format']}, this version reads {FORMAT}")
            tasks = {name: _read_task(arrays, name) for name in about.pop("tasks")}
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read the clip pack {path}: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FileError(f"{path} is not a whole clip pack: {error}") from error
    return Pack(tasks, about)


def _read_task(arrays: Mapping[str, NDArray[Any]], name: str) -> PackTask:
    """Read one task's arrays."""
    reference: Frame = arrays[f"{name}/reference/frames"]
    width = reference.shape[1]

    def masks(part: str) -> Mask:
        return np.unpackbits(arrays[f"{name}/{part}/masks"], axis=-1, count=width).astype(bool)

    def frames(part: str) -> Frame:
        return np.cumsum(arrays[f"{name}/{part}/frames"], axis=0, dtype=np.uint8)

    parts = [key.split("/")[1] for key in arrays if key.startswith(f"{name}/") and key.endswith("/frames")]
    clips = {part: (frames(part), masks(part)) for part in parts if part != "reference"}
    return PackTask(reference, masks("reference"), clips)
