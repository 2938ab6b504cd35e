"""The processor of this machine, as printed beside measured figures and by ``samg-fast doctor``."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["cores", "cpu_features", "cpu_name", "physical_cores", "processor"]

# Instruction sets that decide how fast networks run and in which precisions, by their names in Linux.
_X86 = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_ARM = ("asimd", "asimddp", "bf16", "i8mm", "sve")


def cores() -> int:
    """Return how many CPU cores this process may use: `taskset` or a container may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores() -> int:
    """Return how many physical cores this process may use: threads of one core count once, where that is known."""
    if not hasattr(os, "sched_getaffinity"):
        return cores()
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(topology.format(cpu)).read_text() for cpu in os.sched_getaffinity(0)})
    except OSError:
        return cores()


def cpu_name() -> str:
    """Return the processor's name or, where it is unknown, its architecture."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown CPU"


def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets that matter to networks; empty where the system does not list any."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(feature for feature in _X86 + _ARM if feature in flags)


def processor() -> str:
    """Return the processor's name and its usable cores in one line, for a table of times."""
    return f"{cpu_name()}, {cores()} core{'s' if cores() > 1 else ''}"


@cache
def _cpuinfo() -> dict[str, str]:
    """Return what Linux knows of the first core; empty on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
