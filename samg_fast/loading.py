"""`load`: choose a backend for a bundle, open the networks on it and return a segmenter."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from samg_fast.backends import Backend, CompilingBackend, GpuRuntime, Network, Options, choose, open_networks
from samg_fast.bundle import Bundle, Role
from samg_fast.bundle.zoo import resolve
from samg_fast.devices import process
from samg_fast.errors import InputTypeError
from samg_fast.segmenter import Segmenter

__all__ = ["load"]

_log = logging.getLogger("samg_fast")


def load(
    bundle: str | os.PathLike[str] = "tiny",
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: str = "auto",
    batches: Sequence[int] = Options.batches,
) -> Segmenter:
    """Open a bundle on a backend.

    Parameters
    ----------
    bundle : str or os.PathLike
        Name of a shipped bundle, or a bundle's folder.
    backend : str
        ``"tensorrt"``, ``"tensorrt-rtx"``, ``"onnxruntime"``, ``"openvino"``, or ``"auto"``: the first that can run, in
        the order TensorRT, TensorRT-RTX and ONNX Runtime on a GPU, then OpenVINO and ONNX Runtime on the CPU. The
        choice is logged (logger ``samg_fast``, level INFO).
    precision : str
        ``"fp32"``, ``"bf16"`` (on CPUs that support it), ``"fp16"`` and ``"int8"`` (if the bundle has such files), or
        ``"auto"``: the fastest precision that the backend runs here and whose masks agree with fp32's. They agree if
        the bundle's manifest states an IoU of 0.99 or more; without a stated IoU, fp32 is used. The choice is logged
        too.
    threads : int, optional
        CPU threads for each network and for the kernels between them. By default the backend decides for the networks,
        and the kernels use every core that this process may use.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` and so on, or ``"auto"``: a GPU if the backend can use one.
    batches : sequence of int
        Batch sizes that TensorRT's engines are tuned for; a batch larger than the largest of them is split.

    Returns
    -------
    Segmenter
        With every network compiled and run once, so that the first frame is as fast as the others.

    Raises
    ------
    BundleError
        There is no such bundle, or it is truncated, altered or differs from its manifest.
    BackendError, MissingExtraError
        The backend cannot run here, or is not installed.
    InputError, InputTypeError
        Another argument has an invalid value or type.
    """
    if not isinstance(bundle, (str, os.PathLike)):
        raise InputTypeError(f"bundle must be a name or a folder, not {type(bundle).__name__}")
    folder = resolve(bundle)
    with process.CALL:
        process.check_fork()
        opened = Bundle.open(folder)
        runtime = choose(backend, precision, threads, opened.manifest, device=device, batches=batches)
        # What was chosen here, so that every process of a program computes the same
        reopen = partial(
            load,
            str(folder.absolute()) if folder == Path(bundle) else str(bundle),
            backend=runtime.name,
            precision=runtime.precision,
            threads=runtime.threads,
            device=f"cuda:{runtime.cuda.device_id}" if isinstance(runtime, GpuRuntime) else "cpu",
            batches=tuple(batches),
        )
        segmenter = Segmenter(opened, runtime, _networks(opened, runtime), reopen=reopen)
    _log.info("%s", segmenter.describe())
    return segmenter


def _networks(bundle: Bundle, runtime: Backend | CompilingBackend) -> Mapping[Role, Network]:
    """Open a bundle's files or, on a compiling backend, its engines; engines missing from the cache are built."""
    if not isinstance(runtime, CompilingBackend):
        return open_networks(bundle, runtime)
    from samg_fast import engine_cache  # its libraries are extras

    engines = engine_cache.prepare(bundle, runtime)
    return {report.role: runtime.open_engine(report.file, engine) for report, engine in engines}
