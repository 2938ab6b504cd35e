"""What this machine is: said beside every measured figure, and by ``samg-fast doctor``."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["cores", "cpu_features", "cpu_name", "device"]

# What decides how fast a network runs, and in which precisions, as Linux spells it.
_X86 = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_ARM = ("asimd", "asimddp", "bf16", "i8mm", "sve")


def cores() -> int:
    """Return how many CPU cores this process may use, which a container or `taskset` may have cut down."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name as it calls itself, or its architecture."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown CPU"


def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets that matter to a network; empty where the system does not say."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(feature for feature in _X86 + _ARM if feature in flags)


def device() -> str:
    """Return the processor and its usable cores in one line, for a table of times."""
    return f"{cpu_name()}, {cores()} core{'s' if cores() > 1 else ''}"


@cache
def _cpuinfo() -> dict[str, str]:
    """Return what Linux says of the first core; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
