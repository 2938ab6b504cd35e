"""Which backend runs a bundle here, or why none does."""

from __future__ import annotations

import importlib
import logging
import operator
import re
from collections.abc import Sequence
from typing import Any

from samg_fast.backends.protocols import BACKENDS, Backend, BackendStatus, Options
from samg_fast.bundle import PRECISIONS, Manifest
from samg_fast.devices.driver import find
from samg_fast.errors import BackendError, InputError, InputTypeError, MissingExtraError

__all__ = ["check_batches", "choose", "first_fitting", "parse_device", "preferred", "probe"]

_AUTO = (
    ("tensorrt", "cuda"),
    ("tensorrt-rtx", "cuda"),
    ("onnxruntime", "cuda"),
    ("openvino", "cpu"),
    ("onnxruntime", "cpu"),
)
"""What ``"auto"`` tries, in this order. PyTorch is for those who ask for it."""

_MADE = ("bf16", "openvino")
"""The precision that a backend makes of the fp32 files, and that backend."""

_MODULES = {"tensorrt-rtx": "tensorrt", "torch-compiled": "torch"}  # where its name is not the backend's
_EXTRAS = {
    ("tensorrt", "cuda"): "tensorrt",
    ("tensorrt-rtx", "cuda"): "tensorrt-rtx",
    ("onnxruntime", "cuda"): "onnxruntime-gpu",
    ("openvino", "cpu"): "cpu",
    ("onnxruntime", "cpu"): "cpu",
    ("torch", "cuda"): "torch",
    ("torch", "cpu"): "torch",
    ("torch-compiled", "cuda"): "torch",
    ("torch-compiled", "cpu"): "torch",
}

_MAX_THREADS = 1024
_MAX_BATCH = 4096

_log = logging.getLogger("samg_fast")


def probe() -> list[BackendStatus]:
    """Say of each backend, on each kind of device it knows, whether it can run here, and why not."""
    return [_status(name, device) for name, devices in BACKENDS.items() for device in devices]


def choose(
    name: str,
    precision: str,
    threads: int | None,
    manifest: Manifest,
    *,
    device: str = "auto",
    batches: Sequence[int] = Options.batches,
) -> Backend:
    """Choose a backend for a bundle.

    Parameters
    ----------
    name : str
        One of `BACKENDS`, or ``"auto"``: TensorRT, TensorRT-RTX and ONNX Runtime on a GPU, OpenVINO and ONNX Runtime
        on the processor, the first of these that can run.
    precision : str
        ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``, or ``"auto"``: fp32, whose masks are the reference.
    threads : int or None
        CPU threads for each network; None leaves it to the backend.
    manifest : Manifest
        The bundle's.
    device : str
        ``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:1"`` and so on, or ``"auto"``: the first kind of device in
        `BACKENDS` on which the backend can run.
    batches : sequence of int
        Numbers of pictures at once that TensorRT's engines are tuned for; the largest is the most they take.

    Raises
    ------
    InputError, InputTypeError
        An argument is none of these, or the bundle has no such precision.
    BackendError
        The named backend cannot run here, or not on this device or at this precision.
    MissingExtraError
        The named backend, or with ``"auto"`` every one, is not installed.
    """
    if name != "auto" and name not in BACKENDS:
        raise InputError(f"backend is {name!r}, expected one of auto, {', '.join(BACKENDS)}")
    if precision != "auto" and precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of auto, {', '.join(PRECISIONS)}")
    threads = _check_threads(threads)
    kind, index = parse_device(device)
    tuned = check_batches(batches)
    if manifest.batch is not None:
        tuned = (manifest.batch,)
    wanted = "fp32" if precision == "auto" else precision
    if wanted not in manifest.precisions and wanted != _MADE[0]:
        held = ", ".join(manifest.precisions)
        raise InputError(f"precision is {wanted!r}, but bundle {manifest.name} has files for {held} only")
    candidates, no_gpu = _candidates(name, device, kind)
    status, refused = _first(candidates, wanted, manifest, named=name != "auto")
    if status is None:
        raise _refusal(name, kind, wanted, refused)
    if status.device == "cuda":
        _check_index(device, index)
    if len(candidates) > 1:
        what = "backend" if name == "auto" else "device"
        because = [f"no GPU: {no_gpu}"] * bool(no_gpu) + [f"{_called(each)}: {why}" for each, why in refused]
        reasons = f" ({'; '.join(because)})" if because else ""
        _log.info("%s auto: %s %s on %s at %s%s", what, status.name, status.version, status.device, wanted, reasons)
    return _make(Options(status.name, wanted, threads, status.device, index, tuned))


def first_fitting(precision: str) -> Backend:
    """Return the backend that ``"auto"`` comes to on the processor, for graphs that are in no bundle yet.

    Raises
    ------
    BackendError
        None can run it here.
    MissingExtraError
        None is installed.
    """
    status, refused = _first([each for each in _AUTO if each[1] == "cpu"], precision)
    if status is None:
        raise _refusal("auto", "cpu", precision, refused)
    return _make(Options(status.name, precision))


def preferred(statuses: Sequence[BackendStatus]) -> BackendStatus | None:
    """Return which of these ``"auto"`` takes: the first that is known to run; None if none is."""
    there = {(each.name, each.device): each for each in statuses if each.available and not each.untried}
    return next((there[each] for each in _AUTO if each in there), None)


def _candidates(name: str, device: str, kind: str) -> tuple[list[tuple[str, str]], str]:
    """Return what may run, on which kind of device, and why no GPU may, where one would be taken."""
    known = _AUTO if name == "auto" else tuple((name, each) for each in BACKENDS[name])
    candidates = [each for each in known if kind in ("auto", each[1])]
    if not candidates:
        raise InputError(f"device is {device!r}, but the {name} backend runs on {' or '.join(BACKENDS[name])} only")
    several = len({each[1] for each in candidates}) > 1
    no_gpu = find().reason if several or (name, kind) == ("auto", "cuda") else ""
    if no_gpu and not several:
        raise BackendError(f"device is {device!r}, but {no_gpu}")
    return [each for each in candidates if each[1] == "cpu" or not no_gpu], no_gpu


_Refused = list[tuple[BackendStatus, str]]


def _first(
    candidates: Sequence[tuple[str, str]], precision: str, manifest: Manifest | None = None, *, named: bool = False
) -> tuple[BackendStatus | None, _Refused]:
    """Return the first backend that runs a precision here, if any, and why those before it do not."""
    refused: _Refused = []
    for candidate in candidates:
        status = _status(*candidate)
        why = _obstacle(status, precision, manifest) or ("" if named else status.untried)
        if not why:
            return status, refused
        refused.append((status, why))
    return None, refused


def _obstacle(status: BackendStatus, precision: str, manifest: Manifest | None) -> str:
    """Say why a backend does not run a bundle at a precision; nothing if it does."""
    if not status.available:
        return status.reason
    if precision not in status.precisions:
        offered = f"it offers {', '.join(status.precisions)} on {status.detail or 'this machine'}"
        return offered + ", and the processor has no bfloat16" * ((precision, status.name) == _MADE)
    if manifest is not None and precision not in manifest.precisions and (precision, status.name) != _MADE:
        return f"it takes {precision} from files, and bundle {manifest.name} has none"
    return ""


def _refusal(name: str, kind: str, precision: str, refused: _Refused) -> BackendError | MissingExtraError:
    """Say why none of the backends that were asked for can run."""
    what = precision if any(status.available for status, _ in refused) else ""
    if name == "auto":
        if kind != "cuda" and not any(status.version for status, _ in refused):
            return MissingExtraError("running a bundle", "cpu")
        reasons = [f"{_called(status)}: {why}" for status, why in refused]
        return BackendError(f"no backend can run {what or 'on a GPU'} here: {'; '.join(reasons)}")
    if not any(status.version for status, _ in refused):
        return MissingExtraError(f"the {name} backend", _EXTRAS[name, refused[-1][0].device])
    several = len(refused) > 1
    reasons = [f"on {status.device}, {why}" if several else why for status, why in refused]
    return BackendError(f"the {name} backend cannot run{f' {what}' if what else ''} here: {'; '.join(reasons)}")


def _called(status: BackendStatus) -> str:
    return f"{status.name} on {status.device}" if len(BACKENDS[status.name]) > 1 else status.name


def _check_threads(threads: object) -> int | None:
    if threads is None:
        return None
    return _check_count("threads", threads, _MAX_THREADS, ", or None to leave it to the backend")


def _check_count(name: str, value: object, most: int, otherwise: str = "") -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]  # what is no whole number raises
    except TypeError:
        raise InputTypeError(f"{name} is {value!r}, expected a whole number{' or None' * bool(otherwise)}") from None
    if not 1 <= count <= most:
        raise InputError(f"{name} is {count}, expected 1 to {most}{otherwise}")
    return count


def parse_device(device: object) -> tuple[str, int]:
    """Return the kind of device that is asked for, or ``"auto"``, and which GPU.

    Raises
    ------
    InputError
        It is none of ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` and so on.
    """
    found = re.fullmatch(r"(auto|cpu|cuda)(?::([0-9]{1,3}))?", device) if isinstance(device, str) else None
    if found is None or (found[2] and found[1] != "cuda"):
        raise InputError(f"device is {device!r}, expected auto, cpu, cuda, or cuda:1 for the second GPU and so on")
    return found[1], int(found[2] or 0)


def _check_index(device: str, index: int) -> None:
    gpus = find()
    if index >= len(gpus.found):
        there = ", ".join(f"cuda:{gpu.index} ({gpu.name})" for gpu in gpus.found)
        raise BackendError(f"device is {device!r}, but {gpus.reason or f'there is only {there}'}")


def check_batches(batches: object) -> tuple[int, ...]:
    """Return numbers of pictures at once that engines are tuned for in order, each once.

    Raises
    ------
    InputError, InputTypeError
        They are no whole numbers, not one or more, or one is out of range.
    """
    if not isinstance(batches, Sequence) or isinstance(batches, str):
        raise InputTypeError(f"batches is {batches!r}, expected a sequence of whole numbers")
    if not batches:
        raise InputError("batches is empty, expected one whole number or more")
    return tuple(sorted({_check_count(f"batches[{index}]", each, _MAX_BATCH) for index, each in enumerate(batches)}))


def _make(options: Options) -> Backend:
    backend: Backend = _module(options.name).make(options)
    return backend


def _status(name: str, device: str) -> BackendStatus:
    run = f"run: pip install 'samg-fast[{_EXTRAS[name, device]}]'"
    try:
        status: BackendStatus = _module(name).status(name, device)
    except ModuleNotFoundError as error:
        return BackendStatus(name, False, f"not installed ({error}); {run}", device=device)
    except (ImportError, OSError) as error:  # it is there, and one of its libraries is not
        return BackendStatus(name, False, f"it cannot be loaded ({error}); {run}", "unknown", device=device)
    return status


def _module(name: str) -> Any:
    """Import the module of a backend, which has ``status(name, device)`` and ``make(options)``."""
    return importlib.import_module(f"samg_fast.backends.{_MODULES.get(name, name)}")
