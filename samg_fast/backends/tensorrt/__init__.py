"""The TensorRT and TensorRT-RTX backends: the fast ones on NVIDIA GPUs, whose engines are compiled before they run."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from samg_fast.backends import BackendStatus, Options
from samg_fast.backends.tensorrt import dialect
from samg_fast.backends.tensorrt.building import RECIPE, BuiltEngine, build_engine, check_capabilities
from samg_fast.backends.tensorrt.progress import Progress
from samg_fast.backends.tensorrt.running import TensorRtNetwork
from samg_fast.bundle import Bundle
from samg_fast.devices import driver
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError

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


def status(name: str, device: str) -> BackendStatus:
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
        name, not reason, reason, library.version, () if reason else precisions, detail, device, untried
    )


class TensorRtBackend:
    """TensorRT or TensorRT-RTX on a GPU.

    Parameters
    ----------
    options : Options
        Which of the two, the GPU, the precision, whose files are compiled as they are, and the numbers of pictures at
        once to tune engines for.
    """

    threads: int | None = None

    def __init__(self, options: Options) -> None:
        self.name, self.precision = options.name, options.precision
        self.index, self.batches = options.index, options.batches
        self.version = dialect.load(options.name).version
        self.cuda = Cuda(options.index)
        self.most: int | None = options.batches[-1]
        self._engines: dict[tuple[Path, str], bytes] = {}

    def files(self, precision: str) -> str:
        """Return the precision itself: its files are compiled as they are."""
        return precision

    def prepare(self, bundle: Bundle) -> None:
        """Find or build the engines of a bundle, and hold them for `open`; see `samg_fast.engine_cache.prepare`."""
        from samg_fast import engine_cache

        self._engines = {
            (bundle.path / report.file, report.precision): engine
            for report, engine in engine_cache.prepare(bundle, self)
        }

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> TensorRtNetwork:
        """Open the engine of an ONNX file, to run at a precision; the backend's own by default.

        An engine is held from `prepare` until it is opened, once: the cache may have changed meanwhile.

        Raises
        ------
        BackendError
            There is no engine of it, or it cannot run here.
        """
        wanted = precision or self.precision
        engine = self._engines.pop((Path(path), wanted), None)
        if engine is None:
            raise BackendError(f"there is no engine of {path} at {wanted}: prepare its bundle first")
        return TensorRtNetwork(self.cuda, Path(path).name, engine, backend=self.name)
