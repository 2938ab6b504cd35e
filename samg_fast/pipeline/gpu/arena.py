"""The memory of a segmenter on a GPU: one piece, which frames of every shape use in turn."""

from __future__ import annotations

import numpy as np

from samg_fast.bundle import Manifest
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.pipeline.gpu.memory import Spec, lay_out

__all__ = ["Arena"]

_FIXED = {"no mask": 0.0, "without": 0.0, "with": 1.0}


class Arena:
    """A piece of a GPU's memory.

    It begins with what no frame writes: ``"no mask"`` (batch, 1, 4G, 4G) and ``"without"`` (batch,), which are zeros,
    and ``"with"`` (batch,), which are ones: the first decode's mask input, and whether there is one.

    Parameters
    ----------
    cuda : Cuda
        The GPU.
    manifest : Manifest
        The bundle's.
    batch : int
        The most frames at once.
    size : int
        Bytes that a frame's other arrays need; they begin at `start`.

    Attributes
    ----------
    memory : cuda.core.Buffer
    start : int

    Raises
    ------
    BackendError
        The GPU has too little memory.
    """

    def __init__(self, cuda: Cuda, manifest: Manifest, batch: int, size: int) -> None:
        side = 4 * manifest.encoder.grid
        shapes = {"no mask": (batch, 1, side, side), "without": (batch,), "with": (batch,)}
        specs = {name: Spec(shape, np.dtype(np.float32)) for name, shape in shapes.items()}
        layout = lay_out(specs, {}, [*specs])
        self.start = layout.size
        self.memory = cuda.allocate(layout.size + size, "this segmenter")
        self._batch, self._size = batch, size
        self._cuda, self._specs, self._offsets = cuda, specs, layout.offsets
        for name, value in _FIXED.items():
            cuda.copy(self.fixed(name, batch), cuda.upload(np.full(specs[name].shape, value, np.float32)))

    def holds(self, batch: int, size: int) -> bool:
        """Say whether so many frames, whose arrays need so many bytes, fit."""
        return batch <= self._batch and size <= self._size

    def fixed(self, name: str, batch: int) -> Array:
        """Return one of the arrays that no frame writes, for so many frames."""
        spec = self._specs[name]
        return self._cuda.place(self.memory, self._offsets[name], (batch, *spec.shape[1:]), spec.dtype)

    def grown(self, batch: int, size: int) -> tuple[int, int]:
        """Return what an arena must hold in this one's place, to hold this too."""
        return max(batch, self._batch), max(size, self._size)
