"""What the networks of every GPU backend have in common: how they are called with NumPy arrays."""

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
    """A graph on a GPU; see `samg_fast.backends.DeviceNetwork`. A backend's own says how it is queued.

    Parameters
    ----------
    cuda : Cuda
        The GPU, and the stream on which a call with NumPy arrays runs.
    name : str
        The file's, for messages.
    inputs, outputs : mapping of str to tuple of int
        The shape of each but for its first axis, which is the batch.
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
        """Return how many bytes it needs to work in; see `DeviceNetwork.scratch`."""
        del batch
        return 0

    @abstractmethod
    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph; see `DeviceNetwork.enqueue`."""

    def enqueue_once(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph on arrays that it will not see again: no CUDA graph is captured of that."""
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
            return self._there_and_back(inputs, batch)

    def _there_and_back(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> dict[str, NDArray[Any]]:
        # The arrays of the GPU end with this call, so while other threads are kept away: memory that is freed on the
        # stream while one of them captures would spoil its graph
        arrays = {name: self.cuda.upload(np.ascontiguousarray(x, np.float32)) for name, x in inputs.items()}
        for name, shape in self.outputs.items():
            arrays[name] = self.cuda.empty((batch, *shape), np.float32)
        needed = self.scratch(batch)
        scratch = self.cuda.empty((needed,), np.uint8) if needed else None
        self.enqueue_once(arrays, batch, self.cuda.stream, scratch)
        return {name: self.cuda.download(arrays[name]) for name in self.outputs}
