"""The TensorRT and TensorRT-RTX backends, the fastest on NVIDIA GPUs; they compile networks to engines."""

from __future__ import annotations

import importlib

from samg_fast.backends.protocols import BackendStatus, Options
from samg_fast.backends.tensorrt import dialect
from samg_fast.backends.tensorrt.building import RECIPE, BuiltEngine, build_engine, check_capabilities
from samg_fast.backends.tensorrt.progress import Progress
from samg_fast.backends.tensorrt.running import TensorRtNetwork
from samg_fast.devices import driver
from samg_fast.devices.cuda import Cuda

__all__ = [
    "RECIPE",
    "BuiltEngine",
    "Progress",
    "TensorRtBackend",
    "TensorRtNetwork",
    "build_engine",
    "check_capabilities",
    "make",
    "status",
]


def make(options: Options) -> TensorRtBackend:
    """Open the backend."""
    return TensorRtBackend(options)


def status(name: str) -> BackendStatus:
    """Return whether TensorRT or TensorRT-RTX can run on the first GPU, or why not."""
    importlib.import_module(dialect.MODULES[name])  # the ImportError names what is missing
    library = dialect.load(name)
    seen = driver.find()
    reason = driver.check_kernels(seen) or (
        driver.check_driver(library.title, library.cuda, seen) if library.cuda else ""
    )
    detail = untried = ""
    precisions: tuple[str, ...] = ()
    if seen.found:
        gpu = seen.found[0]
        # Activations are quantised to uint8 with zero points, which the parser accepts only for the DLA
        detail = f"{gpu.name} ({gpu.capability}), not int8: {library.title} takes no zero points"
        precisions = ("fp32", "fp16", "bf16") if gpu.compute_capability >= (8, 0) else ("fp32", "fp16")
        if gpu.compute_capability < library.min_capability:
            minimum = ".".join(map(str, library.min_capability))
            reason = reason or f"{library.title} runs on compute capability {minimum} or later, not {gpu.capability}"
        untried = "" if reason else library.unverified_reason(gpu)
    return BackendStatus(
        name, not reason, reason, library.version, () if reason else precisions, detail, "cuda", untried
    )


class TensorRtBackend:
    """TensorRT or TensorRT-RTX on a GPU.

    Parameters
    ----------
    options : Options
        The name of the library, the GPU, the precision of the files, and the batch sizes to tune engines for.
    """

    threads: int | None = None

    def __init__(self, options: Options) -> None:
        self.name, self.precision = options.name, options.precision
        self.index, self.batches = options.index, options.batches
        self.version = dialect.load(options.name).version
        self.cuda = Cuda(options.index)
        self.max_batch: int | None = options.batches[-1]

    def open_engine(self, file: str, engine: bytes) -> TensorRtNetwork:
        """Open an engine built by `build_engine`; `file` is the name of its ONNX file, for error messages.

        Raises
        ------
        BackendError
            The engine cannot run here.
        """
        return TensorRtNetwork(self.cuda, file, engine, backend=self.name)
