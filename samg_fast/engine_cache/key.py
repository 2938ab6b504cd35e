"""The key that identifies an engine, and the record of a cached engine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["CachedEngine", "EngineKey"]


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """Everything that determines the content of an engine.

    Parameters
    ----------
    onnx : str
        SHA-256 of the ONNX file.
    data : str
        SHA-256 of its external weights; empty if it has none.
    backend, version : str
        The library that compiles it: ``"tensorrt-rtx"``, ``"1.7.1.116"``.
    recipe : int
        `samg_fast.backends.tensorrt.RECIPE` when it was compiled.
    platform : str
        Operating system and CPU architecture, ``"linux x86_64"``; engines do not run on another one.
    gpu : str
        Name of the GPU that it is built on and for; empty if built ahead of time.
    capabilities : tuple of str
        Compute capability of that GPU, or those that it is built for ahead of time.
    precision : str
    batches : tuple of int
        Batch sizes that it is tuned for.
    """

    onnx: str
    data: str = ""
    backend: str
    version: str
    recipe: int
    platform: str
    gpu: str
    capabilities: tuple[str, ...]
    precision: str
    batches: tuple[int, ...]

    @property
    def target(self) -> str:
        """What it is built for, as text: ``"NVIDIA L4 (8.9)"``, or ``"8.9, 12.0"`` ahead of time."""
        capabilities = ", ".join(self.capabilities)
        return f"{self.gpu} ({capabilities})" if self.gpu else capabilities

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def serves(self, other: EngineKey) -> bool:
        """Return whether the engine of this key was built ahead of time and also runs on another key's GPU."""
        same_but_gpu = replace(self, gpu=other.gpu, capabilities=other.capabilities) == other
        return not self.gpu and same_but_gpu and set(other.capabilities) <= set(self.capabilities)

    def replaces(self, other: EngineKey) -> bool:
        """Return whether another key differs from this one only in graph, version or recipe."""
        same = {name: getattr(other, name) for name in ("onnx", "data", "version", "recipe")}
        return self != other and replace(self, **same) == other

    def difference(self, other: EngineKey) -> str:
        """Return why the engine of another key, which this one `replaces`, is not used."""
        if self.version != other.version:
            return f"the one there is was built by {other.backend} {other.version}, this is {self.version}"
        if self.recipe != other.recipe:
            return "the one there is was built by another version of samg-fast"
        return "the one there is was built of another ONNX file"


@dataclass(frozen=True, kw_only=True)
class CachedEngine:
    """An engine in the cache.

    Parameters
    ----------
    key : EngineKey
    bundle, role : str
        The network that it was first built from.
    parity : str
        How it agrees with the bundle's fp32 outputs, as text; empty if it has not been checked yet.
    built : str
        When it was built, in UTC and ISO 8601.
    size : int
        Size of the engine in bytes.
    path : pathlib.Path
        Its file.
    """

    key: EngineKey
    bundle: str
    role: str
    parity: str
    built: str
    size: int
    path: Path

    @property
    def network(self) -> tuple[str, str]:
        """The network, by name of its bundle and role."""
        return self.bundle, self.role

    @property
    def age(self) -> float:
        """Seconds since it was built."""
        return (datetime.now(timezone.utc) - datetime.fromisoformat(self.built)).total_seconds()
