"""Get the engines of one bundle for one target: from the cache, or by building, checking and caching them."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from samg_fast.backends import CompilingBackend
from samg_fast.backends.tensorrt import RECIPE, BuiltEngine, Progress, build_engine
from samg_fast.bundle import Bundle, FileSpec, Role
from samg_fast.devices import driver
from samg_fast.engine_cache.cache import EngineCache
from samg_fast.engine_cache.key import CachedEngine, EngineKey
from samg_fast.errors import EngineParityError, FileError, MissingExtraError

__all__ = ["BuildTarget", "Check", "EngineReport", "Engines", "PreparedEngine", "Watch"]

Check = Callable[[Role, str, bytes], str]
"""Called with role, precision and engine; describes how well it agrees with fp32, or raises BackendError."""

Watch = Callable[[Role, str], Progress]
"""Called with role and precision before an engine is built; returns its progress callback."""

_log = logging.getLogger("samg_fast")


@dataclass(frozen=True)
class EngineReport:
    """How one engine was obtained.

    Parameters
    ----------
    role, precision : str
        The network, and its precision.
    file : str
        Name of its ONNX file.
    target : str
        The GPU or compute capabilities that the engine is for.
    bytes : int
        Size of the engine.
    seconds : float
        Time taken to find it, or to build and check it.
    cached : bool
        Whether it was in the cache.
    parity : str
        How it agrees with the bundle's fp32 outputs, or why that was not checked.
    path : pathlib.Path
        Its file in the cache.
    """

    role: Role
    precision: str
    file: str
    target: str
    bytes: int
    seconds: float
    cached: bool
    parity: str
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "path": str(self.path)}


class PreparedEngine(NamedTuple):
    """An engine that was found or built, and its report."""

    report: EngineReport
    engine: bytes


@dataclass(frozen=True)
class BuildTarget:
    """The library that builds engines, and the GPUs that they are built for.

    Parameters
    ----------
    backend, version : str
        The library.
    batches : tuple of int
        Batch sizes that they are tuned for.
    capabilities : tuple of str
        Compute capabilities to build for ahead of time.
    gpu : Gpu, optional
        The GPU to build on and for, if no capability is given.
    """

    backend: str
    version: str
    batches: tuple[int, ...]
    capabilities: tuple[str, ...] = ()
    gpu: driver.Gpu | None = None

    @classmethod
    def of(cls, backend: CompilingBackend) -> BuildTarget:
        """Return the target of a backend: its GPU."""
        gpu = driver.find().found[backend.index]
        return cls(backend.name, backend.version, backend.batches, gpu=gpu)

    def key(self, spec: FileSpec, precision: str) -> EngineKey:
        """Return the key of a file's engine."""
        return EngineKey(
            onnx=spec.sha256,
            data=spec.data_sha256 or "",
            backend=self.backend,
            version=self.version,
            recipe=RECIPE,
            platform=f"{sys.platform} {platform.machine()}",
            gpu=self.gpu.name if self.gpu else "",
            capabilities=(self.gpu.capability,) if self.gpu else self.capabilities,
            precision=precision,
            batches=self.batches,
        )

    def build(
        self, path: Path, precision: str, *, timing: bytes = b"", progress: Progress | None = None
    ) -> BuiltEngine:
        """Compile an ONNX file; see `samg_fast.backends.tensorrt.build_engine`."""
        return build_engine(
            path,
            backend=self.backend,
            precision=precision,
            batches=self.batches,
            capabilities=self.capabilities,
            index=self.gpu.index if self.gpu else 0,
            timing_cache=timing,
            progress=progress,
        )


@dataclass(frozen=True)
class Engines:
    """Finds or builds a bundle's engines for one target.

    Parameters
    ----------
    bundle : Bundle
    target : BuildTarget
    cache : EngineCache
    check : callable or None
    skip_reason : str
        Why there is no check, if `check` is None.
    watch : callable or None
    """

    bundle: Bundle
    target: BuildTarget
    cache: EngineCache
    check: Check | None
    skip_reason: str
    watch: Watch | None

    def all(self, precision: str) -> Iterator[PreparedEngine]:
        """Find or build the engines of all networks, one after the other, for running the bundle at a precision."""
        manifest = self.bundle.manifest
        for role in manifest.graphs:
            yield self._one(role, manifest.role_precision(role, precision))

    def _one(self, role: Role, precision: str) -> PreparedEngine:
        started = time.perf_counter()
        spec = self.bundle.file(role, precision)
        key = self.target.key(spec, precision)

        def prepared(entry: CachedEngine, parity: str, engine: bytes, *, cached: bool) -> PreparedEngine:
            seconds, target = time.perf_counter() - started, entry.key.target
            return PreparedEngine(
                EngineReport(role, precision, spec.file, target, entry.size, seconds, cached, parity, entry.path),
                engine,
            )

        found = self.cache.find(key)
        if found is None:
            with self.cache.lock(key):
                found = self.cache.find(key)  # another process may have built it meanwhile
                if found is None:
                    return prepared(*self._build(role, key), cached=False)
        return prepared(*self._confirm(role, *found), found[1], cached=True)

    def _build(self, role: Role, key: EngineKey) -> tuple[CachedEngine, str, bytes]:
        """Build, check and cache an engine; return it with its entry and the outcome of the check."""
        what = f"the engine of {self.bundle.name}'s {role} at {key.precision}"
        old = self.cache.replaced(key, self.bundle.name, role)
        if old is None:
            _log.info("building %s for %s by %s %s", what, key.target, key.backend, key.version)
        else:  # the old one stays: another user of the cache may have that version or file
            _log.info("rebuilding %s for %s: %s", what, key.target, key.difference(old.key))
        built = self.target.build(
            self.bundle.onnx_path(role, key.precision),
            key.precision,
            timing=self.cache.timing(key),
            progress=self.watch(role, key.precision) if self.watch else None,
        )
        parity, skip_reason = self._parity(role, key.precision, built.engine)
        entry = self.cache.put(key, built.engine, bundle=self.bundle.name, role=role, parity=parity)
        if built.timing_cache:
            self.cache.put_timing(key, built.timing_cache)
        return entry, parity or skip_reason, built.engine

    def _confirm(self, role: Role, entry: CachedEngine, engine: bytes) -> tuple[CachedEngine, str]:
        """Check an engine that has not been checked yet; return its entry and the outcome of the check."""
        if entry.parity:
            return entry, entry.parity
        try:
            parity, skip_reason = self._parity(role, entry.key.precision, engine)
        except EngineParityError:
            self.cache.remove(entry)
            raise
        if not parity:
            return entry, skip_reason
        try:
            with self.cache.lock(entry.key):
                kept = self.cache.put(
                    entry.key, engine, bundle=entry.bundle, role=entry.role, parity=parity, built=entry.built
                )
        except FileError as error:  # the cache is read-only, as in a container image
            _log.warning("the engine holds, and will be checked again each time: %s", error)
            return entry, parity
        return kept, parity

    def _parity(self, role: Role, precision: str, engine: bytes) -> tuple[str, str]:
        """Check an engine; return how it agrees and an empty string, or an empty string and why it was not checked."""
        if self.check is None:
            return "", f"not checked: {self.skip_reason}"
        try:
            return self.check(role, precision, engine), ""
        except MissingExtraError as error:
            _log.warning("the engine of %s's %s is not checked: %s", self.bundle.name, role, error)
            return "", f"not checked: {error}"
