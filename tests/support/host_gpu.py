"""A GPU backend on a GPU in host memory: networks of ONNX Runtime that are queued, and run on that memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from samg_fast.backends import open_networks
from samg_fast.backends.gpu_network import GpuNetwork
from samg_fast.bundle import Bundle
from samg_fast.devices.cuda import Cuda
from samg_fast.segmenter import Segmenter
from support.fake_cuda import Queues, array_at


class HostNetwork(GpuNetwork):
    """Runs late, like everything on a GPU, and needs memory to work in, which it leaves in disorder."""

    def __init__(self, cuda: Cuda, machine: Queues, path: Path, capturable: bool) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def tails(values: Any) -> dict[str, tuple[int, ...]]:
            return {value.name: tuple(value.shape[1:]) for value in values}

        super().__init__(cuda, path.name, tails(self._session.get_inputs()), tails(self._session.get_outputs()))
        self.capturable = capturable
        self.batches: list[int] = []
        self._machine = machine

    def scratch(self, batch: int) -> int:
        """Return how many bytes it needs."""
        return 1000 * batch

    def enqueue(self, arrays: Mapping[str, Any], batch: int, stream: Any, scratch: Any) -> None:
        """Queue the graph."""
        assert arrays.keys() == {*self.inputs, *self.outputs}
        for name, shape in {**self.inputs, **self.outputs}.items():
            assert arrays[name].shape == (batch, *shape), name
            assert arrays[name].ptr % 256 == 0, name
        assert scratch.ptr % 256 == 0
        assert scratch.size >= self.scratch(batch)
        self.batches.append(batch)
        hosted = {name: array_at(arrays[name]) for name in {**self.inputs, **self.outputs}}
        space = array_at(scratch)

        def work() -> None:
            space[:] = 0x5A
            found = self._session.run(list(self.outputs), {name: hosted[name] for name in self.inputs})
            for name, values in zip(self.outputs, found, strict=True):
                hosted[name][...] = values
            assert (space == 0x5A).all(), "somebody else wrote into the memory this network works in"

        self._machine.queue(int(stream.handle), self.name, work)


class HostBackend:
    """A backend on such a GPU."""

    name, version, precision = "host", "1", "fp32"
    threads = None

    def __init__(self, machine: Queues, *, capturable: bool = True, max_batch: int | None = None) -> None:
        self.cuda = Cuda()
        self.max_batch = max_batch
        self.opened: list[HostNetwork] = []
        self._machine, self._capturable = machine, capturable

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> HostNetwork:
        """Read an ONNX file."""
        self.opened.append(HostNetwork(self.cuda, self._machine, Path(path), self._capturable))
        return self.opened[-1]


def open_on(folder: Path, backend: HostBackend) -> Segmenter:
    """Open a bundle's files on such a backend."""
    bundle = Bundle.open(folder)
    return Segmenter(bundle, backend, open_networks(bundle, backend))


def noise(*shape: int, seed: int = 0) -> Any:
    """Return frames of noise."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
