"""Engines of bundles: found in the cache, or built, checked where a GPU can run them, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from samg_fast.backends import Options, check_batches, choose
from samg_fast.backends.tensorrt import TensorRtNetwork, check_capabilities, dialect
from samg_fast.bundle import Bundle, Manifest
from samg_fast.devices import driver
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.check import EngineCheck
from samg_fast.engine_cache.factory import Check, EngineReport, Engines, MadeEngine, Target, Watch
from samg_fast.errors import BackendError, InputError, MissingExtraError

if TYPE_CHECKING:
    from samg_fast.backends.tensorrt import TensorRtBackend

__all__ = ["COMPILING", "Check", "EngineReport", "MadeEngine", "Watch", "build", "prepare"]

COMPILING = tuple(dialect.MODULES)
"""The backends whose networks are compiled to engines."""


def prepare(
    bundle: Bundle,
    backend: TensorRtBackend,
    *,
    cache: EngineCache | None = None,
    check: Check | None = None,
    watch: Watch | None = None,
) -> list[MadeEngine]:
    """Find or build the engines of a bundle for the GPU of a backend.

    Each is checked against the bundle's fp32 files before it is kept, and one that was built ahead of time when it is
    first used.

    Parameters
    ----------
    bundle : Bundle
    backend : TensorRtBackend
    cache : EngineCache, optional
        Where engines are kept; the user's by default.
    check : callable, optional
        `EngineCheck` on the GPU by default.
    watch : callable, optional

    Returns
    -------
    list of MadeEngine
        Each with its content, so that nobody reads it, and compares it with its hash, again.

    Raises
    ------
    BackendError
        An engine cannot be built, or does not agree.
    FileError
        It cannot be kept.
    """
    check = check or _check_on(bundle, backend)
    engines = Engines(bundle, Target.of(backend), cache or EngineCache(), check, "", watch)
    return list(engines.all(backend.precision))


def build(
    bundle: Bundle,
    *,
    backend: str,
    precision: str = "fp32",
    batches: Sequence[int] | None = None,
    capabilities: Sequence[str] = (),
    device: str = "cuda",
    cache: EngineCache | None = None,
    check: Check | None = None,
    watch: Watch | None = None,
) -> list[EngineReport]:
    """Build the engines of a bundle before they are needed: for a GPU here, or for compute capabilities.

    Parameters
    ----------
    bundle : Bundle
    backend : {"tensorrt", "tensorrt-rtx"}
    precision : str
    batches : sequence of int, optional
        Numbers of pictures at once that the engines are tuned for; `samg_fast.backends.Options.batches` by default, or
        the number that the bundle was made for.
    capabilities : sequence of str
        Compute capabilities, ``"8.9"`` and so on, to build for without such a GPU; by default the GPU here.
    device : str
        Which GPU, ``"cuda"`` or ``"cuda:1"`` and so on, where no capability is named.
    cache, check, watch
        As for `prepare`.

    Raises
    ------
    InputError, InputTypeError
        An argument is none of the above, or the library does not build for that.
    BackendError
        There is no such GPU, or as for `prepare`.
    FileError
        An engine cannot be kept.
    MissingExtraError
        The library is not installed.
    """
    if backend not in COMPILING:
        raise InputError(f"backend is {backend!r}, which compiles no engines; expected {' or '.join(COMPILING)}")
    manifest = bundle.manifest
    if precision not in manifest.precisions:
        held = ", ".join(manifest.precisions)
        raise InputError(f"precision is {precision!r}, but bundle {bundle.name} has files for {held} only")
    tuned = _batches(batches, manifest)
    if not capabilities:
        _expect_gpu(backend)
        here = choose(backend, precision, None, manifest, device=device, batches=tuned)
        made = prepare(bundle, cast("TensorRtBackend", here), cache=cache, check=check, watch=watch)
        return [each.report for each in made]
    check_capabilities(backend, capabilities)
    named = tuple(sorted(set(capabilities), key=lambda each: [int(number) for number in each.split(".")]))
    target = Target(backend, dialect.load(backend).version, tuned, named)
    why_not = ""
    if check is None:
        check, why_not = _check_ahead(bundle, target, precision)
    engines = Engines(bundle, target, cache or EngineCache(), check, why_not, watch)
    return [each.report for each in engines.all(precision)]


def _check_on(bundle: Bundle, backend: TensorRtBackend) -> EngineCheck:
    """Check engines on the GPU of a backend."""
    target = Target.of(backend)
    return EngineCheck(
        bundle,
        backend.batches,
        build=lambda path, precision: target.build(path, precision).engine,
        run=lambda name, engine: TensorRtNetwork(backend.cuda, name, engine, backend=backend.name),
    )


def _check_ahead(bundle: Bundle, target: Target, precision: str) -> tuple[Check | None, str]:
    """Check engines that are built ahead of time on a GPU here; or say why none can."""
    fitting = [gpu for gpu in driver.find().found if gpu.capability in target.capabilities]
    if not fitting:
        return None, "no GPU here can run it"
    device = f"cuda:{fitting[0].index}"
    try:
        backend = choose(target.backend, precision, None, bundle.manifest, device=device, batches=target.batches)
    except (BackendError, MissingExtraError) as error:
        return None, str(error)
    return _check_on(bundle, cast("TensorRtBackend", backend)), ""


def _expect_gpu(backend: str) -> None:
    seen = driver.find()
    if not seen.found:
        known = ", ".join(dialect.load(backend).capabilities)
        instead = f"; name a compute capability to build ahead of time: {known}" if known else ""
        raise BackendError(f"{backend} cannot build for the GPU here: {seen.reason}{instead}")


def _batches(batches: Sequence[int] | None, manifest: Manifest) -> tuple[int, ...]:
    """Return what engines are tuned for, in order."""
    if batches is None:
        return Options.batches if manifest.batch is None else (manifest.batch,)
    asked = check_batches(batches)
    if manifest.batch is not None and asked != (manifest.batch,):
        raise InputError(f"batches is {tuple(batches)}, but bundle {manifest.name} takes {manifest.batch} at once only")
    return asked
