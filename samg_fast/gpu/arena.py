"""The memory of a segmenter on a GPU: one piece, which frames of every shape use in turn."""

from __future__ import annotations

import numpy as np

from samg_fast.bundle import Manifest
from samg_fast.cuda_device import Cuda
from samg_fast.device import Array
from samg_fast.gpu.memory import Spec, lay_out

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
        self.memory = cuda.allocate(layout.size + size)
        self._batch, self._size = batch, size
        self._fixed = {
            name: cuda.place(self.memory, layout.offsets[name], spec.shape, spec.dtype) for name, spec in specs.items()
        }
        self._cuda = cuda
        for name, value in _FIXED.items():
            host = cuda.pinned(specs[name].bytes)
            host.bytes[: specs[name].bytes].view(np.float32)[:] = value
            cuda.copy_in(self._fixed[name], host)
            cuda.synchronize()  # the pinned memory goes away

    def holds(self, batch: int, size: int) -> bool:
        """Say whether so many frames, whose arrays need so many bytes, fit."""
        return batch <= self._batch and size <= self._size

    def fixed(self, name: str, batch: int) -> Array:
        """Return one of the arrays that no frame writes, for so many frames."""
        return self._cuda.rows(self._fixed[name], 0, batch)

    def grown(self, batch: int, size: int) -> tuple[int, int]:
        """Return what an arena must hold in this one's place, to hold this too."""
        return max(batch, self._batch), max(size, self._size)
