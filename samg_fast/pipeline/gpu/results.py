"""What a segmenter on a GPU returns for frames in its memory: arrays that stay there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Box
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError
from samg_fast.results import is_present

if TYPE_CHECKING:
    from cuda.core import Buffer

__all__ = ["GpuSegmentation", "GpuSegmentations", "scores_and_boxes"]


def scores_and_boxes(
    answer: NDArray[np.uint8], offsets: Mapping[str, int], batch: int, ious: int
) -> tuple[list[float], list[Box | None]]:
    """Read the score and the box of every frame from what the GPU wrote; no box of an empty mask.

    Parameters
    ----------
    answer : uint8 array
        `samg_fast.pipeline.gpu.arrays.ANSWER` in one piece.
    offsets : mapping of str to int
        Where each begins, in bytes.
    batch : int
        How many frames to read.
    ious : int
        Predicted IoUs of each: of one mask, or of four, of which the first is not one to choose.

    Raises
    ------
    BackendError
        A score is not finite, so that its mask means nothing.
    """

    def part(name: str, dtype: type, *shape: int) -> list[Any]:
        values: NDArray[Any] = np.frombuffer(answer, dtype, batch * math.prod(shape), offsets[name])
        return list(values.reshape(batch, *shape).tolist())

    first = 0 if ious == 1 else 1
    ranked = zip(part("iou", np.float32, ious), part("chosen", np.int32), strict=True)
    scores = [row[first + best] for row, best in ranked]
    if not all(map(math.isfinite, scores)):
        raise BackendError("the decoder gave NaN or infinity: load the bundle with precision='fp32'")
    boxes = [
        (x0, y0, x1, y1) if area else None
        for (x0, y0, x1, y1), area in zip(part("box", np.int32, 4), part("area", np.int32), strict=True)
    ]
    return scores, boxes


class GpuSegmentation:
    """The target found in a frame that is in a GPU's memory.

    Attributes
    ----------
    mask : (H, W) bool array of the GPU
        Where the target is. SAM-G always proposes a mask, even where the target is absent: see `present`.
    masked : (H, W, 3) uint8 array of the GPU
        Masked observation: the frame where the mask is set, black elsewhere.

    Both offer DLPack: ``torch.from_dlpack(out.masked)``. They are this frame's own, and later frames leave them alone.
    """

    def __init__(self, batch: GpuSegmentations, index: int) -> None:
        self._batch, self._index = batch, index

    @cached_property
    def mask(self) -> Array:
        """Where the target is."""
        return self._batch.view("mask", self._index)

    @cached_property
    def masked(self) -> Array:
        """The frame where the mask is set, black elsewhere."""
        return self._batch.view("masked", self._index)

    @property
    def score(self) -> float:
        """Predicted IoU of the mask. Asking waits for the GPU."""
        return self._batch.scores[self._index]

    @property
    def box(self) -> Box | None:
        """(x_min, y_min, x_max, y_max), corners inclusive; None if the mask is empty. Asking waits for the GPU."""
        return self._batch.boxes[self._index]

    @property
    def present(self) -> bool:
        """Whether the target is there, as `samg_fast.Segmentation.present` says. Asking waits for the GPU."""
        return is_present(self.score, self.box, self._batch.threshold)


class GpuSegmentations:
    """The targets found in a batch of frames that are in a GPU's memory; a sequence of `GpuSegmentation`.

    Parameters
    ----------
    cuda : Cuda
        The GPU.
    memory : cuda.core.Buffer
        `samg_fast.pipeline.gpu.arrays.RESULT` in one piece.
    offsets : mapping of str to int
        Where each begins, in bytes.
    size : tuple of int
        B, H and W.
    ious : int
        Predicted IoUs of a frame; see `scores_and_boxes`.
    threshold : float or None
        The bundle's `Manifest.present`.

    Attributes
    ----------
    mask : (B, H, W) bool array of the GPU
    masked : (B, H, W, 3) uint8 array of the GPU
        As in `GpuSegmentation`, of all frames.
    """

    def __init__(
        self,
        cuda: Cuda,
        memory: Buffer,
        offsets: Mapping[str, int],
        size: tuple[int, int, int],
        ious: int,
        threshold: float | None = None,
    ) -> None:
        self._cuda, self._memory, self._offsets, self._size = cuda, memory, offsets, size
        self._ious, self.threshold = ious, threshold

    @cached_property
    def mask(self) -> Array:
        """Where the target is, in every frame."""
        return self.view("mask")

    @cached_property
    def masked(self) -> Array:
        """The frames where the masks are set, black elsewhere."""
        return self.view("masked")

    def view(self, name: str, index: int | None = None) -> Array:
        """Return ``"mask"`` or ``"masked"`` as an array: of one frame, or of all of them."""
        count, *lengths = self._size
        shape, dtype = ((*lengths, 3), np.uint8) if name == "masked" else (tuple(lengths), np.bool_)
        if index is None:
            return self._cuda.place(self._memory, self._offsets[name], (count, *shape), dtype)
        return self._cuda.place(self._memory, self._offsets[name] + index * math.prod(shape), shape, dtype)

    @property
    def scores(self) -> list[float]:
        """Predicted IoU of every mask. Asking waits for the GPU."""
        return self._read[0]

    @property
    def boxes(self) -> list[Box | None]:
        """(x_min, y_min, x_max, y_max) of every mask; None if it is empty. Asking waits for the GPU."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[list[float], list[Box | None]]:
        with self._cuda.use():
            numbers = self._cuda.place(self._memory, 0, (self._offsets["mask"],), np.uint8)  # all that is before it
            return scores_and_boxes(self._cuda.download(numbers), self._offsets, len(self), self._ious)

    def __len__(self) -> int:
        return self._size[0]

    def __getitem__(self, index: int) -> GpuSegmentation:
        """Return what was found in one frame: views, not copies."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} frames")
        return GpuSegmentation(self, index % len(self))
