"""How one bundle's engines are made for one target: found in the cache, or built, checked and kept."""

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

__all__ = ["BuildTarget", "Check", "EngineReport", "Engines", "MadeEngine", "Watch"]

Check = Callable[[Role, str, bytes], str]
"""Called with role, precision and engine; returns in words how well it agrees with fp32, or raises BackendError."""

Watch = Callable[[Role, str], Progress]
"""Called with role and precision before an engine is built; returns its progress callback."""

_log = logging.getLogger("samg_fast")


@dataclass(frozen=True)
class EngineReport:
    """What became of one engine.

    Parameters
    ----------
    role, precision : str
        The network, and what it works in.
    file : str
        Its ONNX file.
    target : str
        What the engine is for.
    bytes : int
    seconds : float
        What finding, or building and checking it took.
    cached : bool
        Whether it was there already.
    parity : str
        How it agrees with the bundle's fp32 answers, or why that was not checked.
    path : pathlib.Path
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
        """Return plain values."""
        return {**asdict(self), "path": str(self.path)}


class MadeEngine(NamedTuple):
    """An engine, and what became of it."""

    report: EngineReport
    engine: bytes


@dataclass(frozen=True)
class BuildTarget:
    """What engines are built by and for.

    Parameters
    ----------
    backend, version : str
    batches : tuple of int
        Numbers of images at once that they are tuned for.
    capabilities : tuple of str
        Compute capabilities to build for ahead of time.
    gpu : Gpu, optional
        The GPU to build on and for, where none is named.
    """

    backend: str
    version: str
    batches: tuple[int, ...]
    capabilities: tuple[str, ...] = ()
    gpu: driver.Gpu | None = None

    @classmethod
    def of(cls, backend: CompilingBackend) -> BuildTarget:
        """Return the GPU of a backend."""
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
    why_not : str
        Why there is no check, where there is none.
    watch : callable or None
    """

    bundle: Bundle
    target: BuildTarget
    cache: EngineCache
    check: Check | None
    why_not: str
    watch: Watch | None

    def all(self, precision: str) -> Iterator[MadeEngine]:
        """Find or build the engine of every network, one after the other, for a bundle that runs at a precision."""
        manifest = self.bundle.manifest
        for role in manifest.graphs:
            yield self._one(role, manifest.role_precision(role, precision))

    def _one(self, role: Role, precision: str) -> MadeEngine:
        started = time.perf_counter()
        spec = self.bundle.file(role, precision)
        key = self.target.key(spec, precision)

        def made(entry: CachedEngine, parity: str, engine: bytes, *, cached: bool) -> MadeEngine:
            seconds, target = time.perf_counter() - started, entry.key.target
            return MadeEngine(
                EngineReport(role, precision, spec.file, target, entry.size, seconds, cached, parity, entry.path),
                engine,
            )

        found = self.cache.find(key)
        if found is None:
            with self.cache.lock(key):
                found = self.cache.find(key)  # another process may have built it since
                if found is None:
                    return made(*self._build(role, key), cached=False)
        return made(*self._confirm(role, *found), found[1], cached=True)

    def _build(self, role: Role, key: EngineKey) -> tuple[CachedEngine, str, bytes]:
        """Build, check and keep an engine; say in words how the check ended."""
        what = f"the engine of {self.bundle.name}'s {role} at {key.precision}"
        old = self.cache.replaced(key, self.bundle.name, role)
        if old is None:
            _log.info("building %s for %s by %s %s", what, key.target, key.backend, key.version)
        else:  # it stays: whoever shares the cache may have that version, or that file
            _log.info("rebuilding %s for %s: %s", what, key.target, key.difference(old.key))
        made = self.target.build(
            self.bundle.onnx_path(role, key.precision),
            key.precision,
            timing=self.cache.timing(key),
            progress=self.watch(role, key.precision) if self.watch else None,
        )
        parity, why_not = self._parity(role, key.precision, made.engine)
        entry = self.cache.put(key, made.engine, bundle=self.bundle.name, role=role, parity=parity)
        if made.timing_cache:
            self.cache.put_timing(key, made.timing_cache)
        return entry, parity or why_not, made.engine

    def _confirm(self, role: Role, entry: CachedEngine, engine: bytes) -> tuple[CachedEngine, str]:
        """Check an engine that was built where no GPU could run it, and say in words how that ended."""
        if entry.parity:
            return entry, entry.parity
        try:
            parity, why_not = self._parity(role, entry.key.precision, engine)
        except EngineParityError:
            self.cache.remove(entry)
            raise
        if not parity:
            return entry, why_not
        try:
            with self.cache.lock(entry.key):
                kept = self.cache.put(
                    entry.key, engine, bundle=entry.bundle, role=entry.role, parity=parity, built=entry.built
                )
        except FileError as error:  # a cache that is only read, in an image for one
            _log.warning("the engine holds, and will be checked again each time: %s", error)
            return entry, parity
        return kept, parity

    def _parity(self, role: Role, precision: str, engine: bytes) -> tuple[str, str]:
        """Check an engine: how it agrees, or why that cannot be known."""
        if self.check is None:
            return "", f"not checked: {self.why_not}"
        try:
            return self.check(role, precision, engine), ""
        except MissingExtraError as error:
            _log.warning("the engine of %s's %s is not checked: %s", self.bundle.name, role, error)
            return "", f"not checked: {error}"
