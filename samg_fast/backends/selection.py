"""Select the backend that runs a bundle on this machine, or explain why none can."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from samg_fast.backends.protocols import Backend, BackendStatus, CompilingBackend, Options
from samg_fast.backends.registry import REGISTRY, Row, check_name, devices, row
from samg_fast.bundle import PRECISIONS, Manifest
from samg_fast.checks import check_whole
from samg_fast.devices.driver import find
from samg_fast.errors import BackendError, InputError, InputTypeError, MissingExtraError

__all__ = ["AGREEMENT", "check_batches", "choose", "first_fitting", "parse_device", "preferred", "probe"]

AGREEMENT = 0.99
"""Minimum IoU of a precision's masks with fp32's for ``precision="auto"`` to choose it."""

_MAX_THREADS = 1024
_MAX_BATCH = 4096

_log = logging.getLogger("samg_fast")


def probe() -> list[BackendStatus]:
    """Return the status of each backend on each kind of device: whether it can run here, or why not."""
    return [_status(each) for each in REGISTRY]


def choose(
    name: str,
    precision: str,
    threads: int | None,
    manifest: Manifest,
    *,
    device: str = "auto",
    batches: Sequence[int] = Options.batches,
) -> Backend | CompilingBackend:
    """Choose a backend for a bundle.

    Parameters
    ----------
    name : str
        One of `BACKENDS`, or ``"auto"``: the first that can run, in the order TensorRT, TensorRT-RTX and ONNX Runtime
        on a GPU, then OpenVINO and ONNX Runtime on the CPU.
    precision : str
        ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``, or ``"auto"``: the fastest whose masks have an IoU of at least
        `AGREEMENT` with fp32's, as stated in the manifest.
    threads : int or None
        CPU threads for each network; None leaves it to the backend.
    manifest : Manifest
        The bundle's manifest.
    device : str
        ``"cpu"``, ``"cuda"`` (the first GPU), ``"cuda:1"`` and so on, or ``"auto"``: a GPU if the backend can run
        on one.
    batches : sequence of int
        Batch sizes that TensorRT's engines are tuned for; the largest is also their maximum.

    Raises
    ------
    InputError, InputTypeError
        An argument has an invalid value or type, or the bundle has no files for the precision.
    BackendError
        The named backend cannot run here, or not on this device or at this precision.
    MissingExtraError
        The named backend, or with ``"auto"`` every backend, is not installed.
    """
    check_name(name)
    if precision != "auto" and precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of auto, {', '.join(PRECISIONS)}")
    if threads is not None:
        threads = check_whole("threads", threads, 1, _MAX_THREADS, otherwise=", or None to leave it to the backend")
    kind, index = parse_device(device)
    tuned = check_batches(batches)
    if manifest.batch is not None:
        tuned = (manifest.batch,)
    wanted = "fp32" if precision == "auto" else precision  # every backend in the registry runs fp32
    if wanted not in manifest.precisions and not any(wanted in each.files for each in REGISTRY):
        held = ", ".join(manifest.precisions)
        raise InputError(f"precision is {wanted!r}, but bundle {manifest.name} has files for {held} only")
    candidates, no_gpu = _candidates(name, device, kind)
    chosen, status, refused = _first(candidates, wanted, manifest, named=name != "auto")
    if chosen is None:
        raise _refusal(name, kind, wanted, refused)
    if status.device == "cuda":
        _check_index(device, index)
    if precision == "auto":
        wanted = _fastest(chosen, status, manifest)
        if wanted != "fp32":
            iou = manifest.agreement[wanted]
            _log.info("precision auto: %s, whose masks have a mean IoU of %.4f with those at fp32", wanted, iou)
    if len(candidates) > 1:
        what = "backend" if name == "auto" else "device"
        because = [f"no GPU: {no_gpu}"] * bool(no_gpu) + [f"{_label(each)}: {why}" for each, why in refused]
        reasons = f" ({'; '.join(because)})" if because else ""
        _log.info("%s auto: %s %s on %s at %s%s", what, status.name, status.version, status.device, wanted, reasons)
    backend: Backend | CompilingBackend = _make(
        chosen, Options(status.name, wanted, threads, status.device, index, tuned)
    )
    return backend


def first_fitting(precision: str) -> Backend:
    """Return the backend that ``"auto"`` selects on the CPU, for graphs that are not in a bundle yet.

    Raises
    ------
    BackendError
        No backend can run this precision here.
    MissingExtraError
        No backend is installed.
    """
    chosen, _, refused = _first([each for each in REGISTRY if each.device == "cpu"], precision)
    if chosen is None:
        raise _refusal("auto", "cpu", precision, refused)
    backend: Backend = _make(chosen, Options(chosen.name, precision))
    return backend


def preferred(statuses: Sequence[BackendStatus]) -> BackendStatus | None:
    """Return the status of the backend that ``"auto"`` takes: the first that can run and is not untried, or None."""
    usable = {(each.name, each.device): each for each in statuses if each.available and not each.untried}
    return next((usable[each.name, each.device] for each in REGISTRY if (each.name, each.device) in usable), None)


def _candidates(name: str, device: str, kind: str) -> tuple[list[Row], str]:
    """Return the rows to try, and the reason if rows on a GPU were left out because no GPU can be used."""
    known = [each for each in REGISTRY if name in ("auto", each.name)]
    candidates = [each for each in known if kind in ("auto", each.device)]
    if not candidates:
        raise InputError(f"device is {device!r}, but the {name} backend runs on {' or '.join(devices(name))} only")
    several = len({each.device for each in candidates}) > 1
    no_gpu = find().reason if several or (name, kind) == ("auto", "cuda") else ""
    if no_gpu and not several:
        raise BackendError(f"device is {device!r}, but {no_gpu}")
    return [each for each in candidates if each.device == "cpu" or not no_gpu], no_gpu


_Refused = list[tuple[BackendStatus, str]]


def _first(
    candidates: Sequence[Row], precision: str, manifest: Manifest | None = None, *, named: bool = False
) -> tuple[Row | None, BackendStatus, _Refused]:
    """Return the first backend that runs a precision here, if any, its status, and why the ones before it cannot."""
    refused: _Refused = []
    for candidate in candidates:
        status = _status(candidate)
        why = _obstacle(candidate, status, precision, manifest) or ("" if named else status.untried)
        if not why:
            return candidate, status, refused
        refused.append((status, why))
    return None, BackendStatus("", False), refused


def _obstacle(candidate: Row, status: BackendStatus, precision: str, manifest: Manifest | None) -> str:
    """Return why a backend cannot run a bundle at a precision, or an empty string."""
    if not status.available:
        return status.reason
    if precision not in status.precisions:
        offered = f"it offers {', '.join(status.precisions)} on {status.detail or 'this machine'}"
        return offered + ", and the processor has no bfloat16" * (precision in candidate.files)
    if manifest is not None and candidate.files.get(precision, precision) not in manifest.precisions:
        return f"it takes {precision} from files, and bundle {manifest.name} has none"
    return ""


def _fastest(chosen: Row, status: BackendStatus, manifest: Manifest) -> str:
    """Return the fastest precision that runs here and whose masks agree with fp32's, as stated in the manifest."""
    return next(
        each
        for each in chosen.fastest
        if not _obstacle(chosen, status, each, manifest)
        and (each == "fp32" or manifest.agreement.get(each, 0.0) >= AGREEMENT)
    )


def _refusal(name: str, kind: str, precision: str, refused: _Refused) -> BackendError | MissingExtraError:
    """Return the error that explains why none of the requested backends can run."""
    what = precision if any(status.available for status, _ in refused) else ""
    if name == "auto":
        if kind != "cuda" and not any(status.version for status, _ in refused):
            return MissingExtraError("running a bundle", "cpu")
        reasons = [f"{_label(status)}: {why}" for status, why in refused]
        return BackendError(f"no backend can run {what or 'on a GPU'} here: {'; '.join(reasons)}")
    if not any(status.version for status, _ in refused):
        return MissingExtraError(f"the {name} backend", row(name, refused[-1][0].device).extra)
    several = len(refused) > 1
    reasons = [f"on {status.device}, {why}" if several else why for status, why in refused]
    return BackendError(f"the {name} backend cannot run{f' {what}' if what else ''} here: {'; '.join(reasons)}")


def _label(status: BackendStatus) -> str:
    return f"{status.name} on {status.device}" if len(devices(status.name)) > 1 else status.name


def parse_device(device: object) -> tuple[str, int]:
    """Return the kind of device, or ``"auto"``, and the index of the GPU.

    Raises
    ------
    InputError
        `device` is not one of ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` and so on.
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
    """Check the batch sizes that engines are tuned for; return them sorted and without duplicates.

    Raises
    ------
    InputError, InputTypeError
        `batches` is not a sequence of integers, is empty, or has a value out of range.
    """
    if not isinstance(batches, Sequence) or isinstance(batches, str):
        raise InputTypeError(f"batches is {batches!r}, expected a sequence of whole numbers")
    if not batches:
        raise InputError("batches is empty, expected one whole number or more")
    return tuple(sorted({check_whole(f"batches[{index}]", each, 1, _MAX_BATCH) for index, each in enumerate(batches)}))


def _make(chosen: Row, options: Options) -> Any:
    return chosen.load().make(options)


def _status(candidate: Row) -> BackendStatus:
    run = f"run: pip install 'samg-fast[{candidate.extra}]'"
    name, device = candidate.name, candidate.device
    try:
        status: BackendStatus = candidate.load().status(name)
    except ModuleNotFoundError as error:
        return BackendStatus(name, False, f"not installed ({error}); {run}", device=device)
    except (ImportError, OSError) as error:  # installed, but one of its own libraries is missing
        return BackendStatus(name, False, f"it cannot be loaded ({error}); {run}", "unknown", device=device)
    return status
