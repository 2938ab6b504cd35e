"""What decides what an engine is, and what is known of one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["CachedEngine", "EngineKey"]


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """All that decides what an engine is.

    Parameters
    ----------
    onnx : str
        SHA-256 of the ONNX file.
    data : str
        SHA-256 of the file of weights that it refers to; empty without one.
    backend, version : str
        What compiles it: ``"tensorrt-rtx"``, ``"1.7.1.116"``.
    recipe : int
        `samg_fast.backends.tensorrt.RECIPE` of whoever compiles it.
    platform : str
        Where it is compiled and runs, ``"linux x86_64"``: no other machine's processor can read it.
    gpu : str
        Name of the GPU that it is built on and for; empty if it is built ahead of time.
    capabilities : tuple of str
        That GPU's compute capability, or those that it is built for.
    precision : str
    batches : tuple of int
        Numbers of pictures at once that it is tuned for.
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
        """What it is built for, in words: ``"NVIDIA L4 (8.9)"``, or ``"8.9, 12.0"`` ahead of time."""
        capabilities = ", ".join(self.capabilities)
        return f"{self.gpu} ({capabilities})" if self.gpu else capabilities

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def serves(self, other: EngineKey) -> bool:
        """Say whether the engine of this key, built ahead of time, is also one for another key's GPU."""
        same_but_gpu = replace(self, gpu=other.gpu, capabilities=other.capabilities) == other
        return not self.gpu and same_but_gpu and set(other.capabilities) <= set(self.capabilities)

    def replaces(self, other: EngineKey) -> bool:
        """Say whether an engine of another key is for the same use, but of another graph, version or recipe."""
        same = {name: getattr(other, name) for name in ("onnx", "data", "version", "recipe")}
        return self != other and replace(self, **same) == other

    def difference(self, other: EngineKey) -> str:
        """Say why an engine of another key, which this one `replaces`, is not used."""
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
        Whose network it was first built of.
    parity : str
        How it agreed with the bundle's fp32 answers, in words; empty if no GPU has run it yet.
    built : str
        When, in UTC and ISO 8601.
    size : int
        Bytes of the engine.
    path : pathlib.Path
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
        """Whose network it is, by name: the bundle and the role."""
        return self.bundle, self.role

    @property
    def age(self) -> float:
        """Seconds since it was built."""
        return (datetime.now(timezone.utc) - datetime.fromisoformat(self.built)).total_seconds()
