"""The TensorRT and TensorRT-RTX backends: the fast ones on NVIDIA GPUs, whose engines are compiled before they run."""

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
    """Say whether TensorRT or TensorRT-RTX can run here, on the first GPU."""
    importlib.import_module(dialect.MODULES[name])  # its ImportError says what is missing
    library = dialect.load(name)
    seen = driver.find()
    reason = driver.check_kernels(seen) or (
        driver.check_driver(library.title, library.cuda, seen) if library.cuda else ""
    )
    detail = untried = ""
    precisions: tuple[str, ...] = ()
    if seen.found:
        gpu = seen.found[0]
        # Activations are quantised to uint8 with zero points, which the parser takes for none but the DLA
        detail = f"{gpu.name} ({gpu.capability}), not int8: {library.title} takes no zero points"
        precisions = ("fp32", "fp16", "bf16") if gpu.compute_capability >= (8, 0) else ("fp32", "fp16")
        if gpu.compute_capability < library.least_capability:
            least = ".".join(map(str, library.least_capability))
            reason = reason or f"{library.title} runs on compute capability {least} or later, not {gpu.capability}"
        untried = "" if reason else library.untried(gpu)
    return BackendStatus(
        name, not reason, reason, library.version, () if reason else precisions, detail, "cuda", untried
    )


class TensorRtBackend:
    """TensorRT or TensorRT-RTX on a GPU.

    Parameters
    ----------
    options : Options
        Which of the two, the GPU, the precision, whose files are compiled as they are, and the numbers of images at
        once to tune engines for.
    """

    threads: int | None = None

    def __init__(self, options: Options) -> None:
        self.name, self.precision = options.name, options.precision
        self.index, self.batches = options.index, options.batches
        self.version = dialect.load(options.name).version
        self.cuda = Cuda(options.index)
        self.max_batch: int | None = options.batches[-1]

    def open_engine(self, file: str, engine: bytes) -> TensorRtNetwork:
        """Open an engine that `build_engine` made of an ONNX file, whose name is for messages.

        Raises
        ------
        BackendError
            It cannot run here.
        """
        return TensorRtNetwork(self.cuda, file, engine, backend=self.name)
