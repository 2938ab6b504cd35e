"""NPZ: all masks in one array, as GR00T reads them beside a data set."""

from __future__ import annotations

import numpy as np

from samg_fast.checks import Frame
from samg_fast.errors import InputError
from samg_fast.files import check_writable, replacing
from samg_fast.formats.writer import Job, Result, Writer

__all__ = ["NpzWriter"]


class NpzWriter(Writer):
    """``masks.npz``, whose ``arr_0`` is (T, H, W) uint8: 0 for none, else the object's number.

    All masks are kept until the end, a byte a pixel.
    """

    made = ("masks.npz",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._path = job.folder / "masks.npz"
        check_writable(self._path)
        self._ids: list[Frame] = []

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        shown = result.seen.ids
        if self._ids and shown.shape != self._ids[0].shape:
            raise InputError(
                f"format npz is one array: {result.name} is {shown.shape}, not {self._ids[0].shape} as those before"
            )
        self._ids.append(shown)

    def close(self) -> None:
        """Write the file, if there was a frame."""
        if self._ids:
            with replacing(self._path) as temporary:
                np.savez_compressed(temporary, np.stack(self._ids))
