"""The base class of networks on a GPU: how they are called with NumPy arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["GpuNetwork"]


class GpuNetwork(ABC):
    """A graph on a GPU; see `samg_fast.backends.DeviceNetwork`. Subclasses implement `enqueue`.

    Parameters
    ----------
    cuda : Cuda
        The GPU, and the stream on which a call with NumPy arrays runs.
    name : str
        Name of the file, for error messages.
    inputs, outputs : mapping of str to tuple of int
        Shape of each array without its first axis, the batch.
    """

    capturable = False

    def __init__(
        self,
        cuda: Cuda,
        name: str,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.cuda, self.name, self.inputs, self.outputs = cuda, name, dict(inputs), dict(outputs)

    def scratch(self, batch: int) -> int:
        """Return the size of the workspace in bytes; see `DeviceNetwork.scratch`."""
        del batch
        return 0

    @abstractmethod
    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph; see `DeviceNetwork.enqueue`."""

    def enqueue_once(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph on arrays that are used only once; this call is never captured in a CUDA graph."""
        self.enqueue(arrays, batch, stream, scratch)

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Copy the inputs to the GPU, run the graph there and copy its outputs back; outputs are new arrays."""
        if inputs.keys() != self.inputs.keys():
            raise BackendError(f"{self.name} takes {', '.join(self.inputs)}, not {', '.join(inputs)}")
        batch = len(next(iter(inputs.values())))
        for name, array in inputs.items():
            if array.shape != (batch, *self.inputs[name]):
                wanted = (batch, *self.inputs[name])
                raise BackendError(f"{self.name} takes {name} of shape {wanted}, not {array.shape}")
        with self.cuda.use():
            return self._run_on_gpu(inputs, batch)

    def _run_on_gpu(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> dict[str, NDArray[Any]]:
        # The GPU arrays are freed when this method returns, while the caller still holds the GPU: freeing memory on the
        # stream while another thread captures would invalidate its CUDA graph
        arrays = {name: self.cuda.upload(np.ascontiguousarray(x, np.float32)) for name, x in inputs.items()}
        for name, shape in self.outputs.items():
            arrays[name] = self.cuda.empty((batch, *shape), np.float32)
        needed = self.scratch(batch)
        scratch = self.cuda.empty((needed,), np.uint8) if needed else None
        self.enqueue_once(arrays, batch, self.cuda.stream, scratch)
        return {name: self.cuda.download(arrays[name]) for name in self.outputs}
