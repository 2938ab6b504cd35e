"""Find the engines of a bundle in the cache, or build, check and cache them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from samg_fast.backends import CompilingBackend, Options, check_batches, choose, compiling
from samg_fast.backends.tensorrt import check_capabilities, dialect
from samg_fast.bundle import Bundle, Manifest
from samg_fast.devices import driver
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.check import EngineCheck
from samg_fast.engine_cache.factory import BuildTarget, Check, EngineReport, Engines, PreparedEngine, Watch
from samg_fast.errors import BackendError, InputError, MissingExtraError

__all__ = ["Check", "EngineReport", "PreparedEngine", "Watch", "build", "prepare"]


def prepare(
    bundle: Bundle,
    backend: CompilingBackend,
    *,
    cache: EngineCache | None = None,
    check: Check | None = None,
    watch: Watch | None = None,
) -> list[PreparedEngine]:
    """Find or build the engines of a bundle for the GPU of a backend.

    Each engine is checked against the bundle's fp32 files before it is cached; one that was built ahead of time is
    checked when it is first used.

    Parameters
    ----------
    bundle : Bundle
    backend : CompilingBackend
    cache : EngineCache, optional
        Where engines are stored; the user's cache by default.
    check : callable, optional
        `EngineCheck` on the GPU by default.
    watch : callable, optional

    Returns
    -------
    list of PreparedEngine
        Reports with the engines' content, which so need not be read and verified again.

    Raises
    ------
    BackendError
        An engine cannot be built, or does not agree with the fp32 files.
    FileError
        An engine cannot be written to the cache.
    """
    check = check or _check_on(bundle, backend)
    engines = Engines(bundle, BuildTarget.of(backend), cache or EngineCache(), check, "", watch)
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
    """Build the engines of a bundle for a GPU of this machine, or ahead of time for compute capabilities.

    Parameters
    ----------
    bundle : Bundle
    backend : {"tensorrt", "tensorrt-rtx"}
    precision : str
    batches : sequence of int, optional
        Batch sizes that the engines are tuned for; by default the bundle's fixed batch size, or else
        `samg_fast.backends.Options.batches`.
    capabilities : sequence of str
        Compute capabilities, ``"8.9"`` and so on, to build for ahead of time; by default the GPU of this machine.
    device : str
        Which GPU, ``"cuda"`` or ``"cuda:1"`` and so on, if no capability is given.
    cache, check, watch
        As for `prepare`.

    Raises
    ------
    InputError, InputTypeError
        An argument has an invalid value or type, or the library cannot build for it.
    BackendError
        There is no such GPU, or as for `prepare`.
    FileError
        An engine cannot be written to the cache.
    MissingExtraError
        The library is not installed.
    """
    if backend not in compiling():
        raise InputError(f"backend is {backend!r}, which compiles no engines; expected {' or '.join(compiling())}")
    manifest = bundle.manifest
    if precision not in manifest.precisions:
        held = ", ".join(manifest.precisions)
        raise InputError(f"precision is {precision!r}, but bundle {bundle.name} has files for {held} only")
    tuned = _batches(batches, manifest)
    if not capabilities:
        _expect_gpu(backend)
        here = choose(backend, precision, None, manifest, device=device, batches=tuned)
        made = prepare(bundle, cast(CompilingBackend, here), cache=cache, check=check, watch=watch)
        return [each.report for each in made]
    check_capabilities(backend, capabilities)
    named = tuple(sorted(set(capabilities), key=lambda each: [int(number) for number in each.split(".")]))
    target = BuildTarget(backend, dialect.load(backend).version, tuned, named)
    skip_reason = ""
    if check is None:
        check, skip_reason = _check_ahead(bundle, target, precision)
    engines = Engines(bundle, target, cache or EngineCache(), check, skip_reason, watch)
    return [each.report for each in engines.all(precision)]


def _check_on(bundle: Bundle, backend: CompilingBackend) -> EngineCheck:
    """Return a check that runs engines on the GPU of a backend."""
    target = BuildTarget.of(backend)
    return EngineCheck(
        bundle,
        backend.batches,
        build=lambda path, precision: target.build(path, precision).engine,
        run=backend.open_engine,
    )


def _check_ahead(bundle: Bundle, target: BuildTarget, precision: str) -> tuple[Check | None, str]:
    """Return a check of engines built ahead of time, and if no GPU here can run them, None and the reason."""
    fitting = [gpu for gpu in driver.find().found if gpu.capability in target.capabilities]
    if not fitting:
        return None, "no GPU here can run it"
    device = f"cuda:{fitting[0].index}"
    try:
        backend = choose(target.backend, precision, None, bundle.manifest, device=device, batches=target.batches)
    except (BackendError, MissingExtraError) as error:
        return None, str(error)
    return _check_on(bundle, cast(CompilingBackend, backend)), ""


def _expect_gpu(backend: str) -> None:
    seen = driver.find()
    if not seen.found:
        known = ", ".join(dialect.load(backend).capabilities)
        instead = f"; name a compute capability to build ahead of time: {known}" if known else ""
        raise BackendError(f"{backend} cannot build for the GPU here: {seen.reason}{instead}")


def _batches(batches: Sequence[int] | None, manifest: Manifest) -> tuple[int, ...]:
    """Return the batch sizes that engines are tuned for, in ascending order."""
    if batches is None:
        return Options.batches if manifest.batch is None else (manifest.batch,)
    asked = check_batches(batches)
    if manifest.batch is not None and asked != (manifest.batch,):
        raise InputError(f"batches is {tuple(batches)}, but bundle {manifest.name} takes {manifest.batch} at once only")
    return asked
