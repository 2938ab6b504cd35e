"""``samg-fast cache list`` and ``samg-fast cache clear``."""

from __future__ import annotations

from typing import Annotated

import typer

from samg_fast.cli.common import JsonOption, check_json, say, show_table, write_json

_MIB = 1 << 20
_SHOWN = 12
"""Number of digits of an engine's file name to show: enough to be unique, and few enough for one line."""
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def list_engines(json: JsonOption = None) -> None:
    """List the engines in the cache.

    An engine is stale if a later one was built for the same use from another file or by another version. It is kept,
    as another machine may share the cache.
    """
    from samg_fast.engine_cache.cache import EngineCache

    check_json(json)
    cache = EngineCache()
    entries = cache.entries()
    stale = {entry.path for entry in cache.stale()}
    rows = [
        (
            entry.bundle,
            entry.role,
            f"{entry.key.backend} {entry.key.version}, {entry.key.platform}",
            entry.key.target,
            entry.key.precision,
            ",".join(map(str, entry.key.batches)),
            entry.path.name[:_SHOWN],
            f"{entry.size / _MIB:.1f}",
            _age(entry.age) + ", stale" * (entry.path in stale),
        )
        for entry in entries
    ]
    if rows:
        columns = ("bundle", "network", "built by", "for", "precision", "batches", "file", "MiB", "age")
        show_table(columns, rows, numbers=2, json_to=json)
    total = sum(entry.size for entry in entries) / _MIB
    say(f"{_count(len(entries), 'engine')}, {total:.1f} MiB, in {cache.folder}", json_to=json)
    if stale:
        say(f"{len(stale)} stale; samg-fast cache clear --stale removes them", json_to=json)
    figures = [
        {
            "bundle": entry.bundle,
            "role": entry.role,
            "backend": entry.key.backend,
            "version": entry.key.version,
            "platform": entry.key.platform,
            "gpu": entry.key.gpu or None,
            "compute_capabilities": list(entry.key.capabilities),
            "precision": entry.key.precision,
            "batches": list(entry.key.batches),
            "parity": entry.parity or None,
            "bytes": entry.size,
            "built": entry.built,
            "path": str(entry.path),
            "stale": entry.path in stale,
        }
        for entry in entries
    ]
    write_json(json, {"folder": str(cache.folder), "engines": figures})


def clear(
    stale: Annotated[bool, typer.Option("--stale", help="Only those for whose use a later one was built.")] = False,
    json: JsonOption = None,
) -> None:
    """Remove engines from the cache, all of them by default; they are built again when they are needed."""
    from samg_fast.engine_cache.cache import EngineCache

    check_json(json)
    cache = EngineCache()
    count, size = cache.clear_stale() if stale else cache.clear()
    say(f"removed {_count(count, 'file')}, {size / _MIB:.1f} MiB, from {cache.folder}", json_to=json)
    write_json(json, {"folder": str(cache.folder), "removed": count, "bytes": size})


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _age(seconds: float) -> str:
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
