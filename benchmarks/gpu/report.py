"""What `benchmarks.gpu` makes of its measurements: figures, tables, and the bars they are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.metrics import percentiles

if TYPE_CHECKING:
    from benchmarks.gpu.measure import Times

__all__ = ["BATCH", "EAGER", "bars", "figures", "markdown"]

EAGER = "PyTorch, eager"

BATCH = 64
"""The batch that the bar on frames/s is for."""

_FRAME_MS = {"l0-vits14": (3.0, 1.0), "l1-vitb14": (4.0, 1.5)}  # must, aim
_HOST_US = 50.0
_MANY, _FRAMES_PER_SECOND = ("l0-vits14", BATCH), 1500.0
_TIMES_EAGER = 10.0


def figures(times: Times, eager: Times | None, batch: int) -> dict[str, Any]:
    """Reduce a contender's times.

    Parameters
    ----------
    times : Times
    eager : Times or None
        The eager reference's; None where it did not run.
    batch : int
        Frames in a batch.

    Returns
    -------
    dict
        ``on_gpu_ms``, ``host_us``, ``from_host_ms`` and ``batch_ms``, each with ``p50``, ``p95``, ``iqr`` (first and
        third quartile), ``rounds`` (lowest and highest median of a round) and ``calls``, or None where there is no such
        way; ``frames_per_second`` of whole batches, by their median; ``times_eager``, how many times faster than eager
        by the medians of ``from_host_ms``, which is the same work.
    """
    found: dict[str, Any] = {
        "on_gpu_ms": _spread(times, "on_gpu"),
        "host_us": _spread(times, "host", 1e3),
        "from_host_ms": _spread(times, "from_host"),
        "batch_ms": _spread(times, "batch"),
    }
    of_batch = found["batch_ms"]
    found["frames_per_second"] = of_batch and batch * 1e3 / of_batch["p50"]
    found["times_eager"] = eager and float(np.median(eager.from_host)) / found["from_host_ms"]["p50"]
    return found


def _spread(times: Times, kind: str, scale: float = 1.0) -> dict[str, Any] | None:
    values = np.asarray(getattr(times, kind)) * scale
    if not len(values):
        return None
    spread = percentiles(values, 25, 50, 75, 95)
    rounds = np.asarray(times.rounds[kind]) * scale
    return {
        "p50": spread["p50"],
        "p95": spread["p95"],
        "iqr": [spread["p25"], spread["p75"]],
        "rounds": [float(rounds.min()), float(rounds.max())],
        "calls": len(values),
    }


def bars(bundle: str, batch: int, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold a segmenter's figures to the bars there are for its bundle and batch.

    Returns
    -------
    list of dict
        ``what``, with its unit; ``limit`` that it must keep, and whether that is ``at_most`` or at least; ``aim``, what
        is hoped for, or None; ``found``; and ``verdict``, which begins with ``met`` or ``MISSED``.
    """
    listed = []
    if bundle in _FRAME_MS:
        must, aim = _FRAME_MS[bundle]
        listed.append(_bar("frame on the GPU, ms", must, found["on_gpu_ms"]["p50"], at_most=True, aim=aim))
    listed.append(_bar("host, µs", _HOST_US, found["host_us"]["p50"], at_most=True))
    if (bundle, batch) == _MANY:
        listed.append(
            _bar(f"batch of {batch}, frames/s", _FRAMES_PER_SECOND, found["frames_per_second"], at_most=False)
        )
    if found["times_eager"] is not None:
        listed.append(_bar("× eager", _TIMES_EAGER, found["times_eager"], at_most=False))
    return listed


def _bar(what: str, limit: float, found: float, *, at_most: bool, aim: float | None = None) -> dict[str, Any]:
    def kept(bound: float) -> bool:
        return found <= bound if at_most else found >= bound

    verdict = "MISSED" if not kept(limit) else "met" if aim is None or not kept(aim) else "met, and the aim"
    return {"what": what, "limit": limit, "at_most": at_most, "aim": aim, "found": found, "verdict": verdict}


def markdown(rows: Sequence[Mapping[str, Any]], batch: int) -> str:
    """Lay out rows as Markdown: times with their spread, agreement beside speed, and the bars.

    Parameters
    ----------
    rows : sequence of mapping
        `figures` of every contender, with its ``name``, ``iou_eager`` and ``iou_fp32`` (`measure.likeness` or
        None), ``cosine`` and ``correlation`` (None without the eager reference), and `bars`.
    batch : int
        Frames in a batch.
    """
    spread = [
        "| contender | on the GPU p50 | IQR | rounds | p95 | host µs p50 | IQR | from the host p50 | IQR | p95 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    beside = [
        f"| contender | on the GPU p50 | × eager | batch of {batch}, frames/s | rounds | IoU with eager | lowest | "
        "IoU with fp32 | lowest | cosine of maps | correlation of decodes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    held = ["| contender | bar | must be | aim | found | |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        on_gpu, host, from_host = (row[kind] for kind in ("on_gpu_ms", "host_us", "from_host_ms"))
        spread.append(
            f"| {row['name']} | {_cells(on_gpu, 3, 'p50', 'iqr', 'rounds', 'p95')} | {_cells(host, 1, 'p50', 'iqr')} | "
            f"{_cells(from_host, 3, 'p50', 'iqr', 'p95')} |"
        )
        beside.append(
            f"| {row['name']} | {_cells(on_gpu, 3, 'p50')} | {_number(row['times_eager'], 1)} | "
            f"{_number(row['frames_per_second'], 0)} | {_per_second(row['batch_ms'], batch)} | "
            f"{_cells(row['iou_eager'], 4, 'mean', 'lowest')} | {_cells(row['iou_fp32'], 4, 'mean', 'lowest')} | "
            f"{_number(row['cosine'], 6)} | {_number(row['correlation'], 5)} |"
        )
        for bar in row["bars"]:
            must, aim = f"{'≤' if bar['at_most'] else '≥'} {bar['limit']:g}", "–" if bar["aim"] is None else bar["aim"]
            held.append(f"| {row['name']} | {bar['what']} | {must} | {aim} | {bar['found']:.3f} | {bar['verdict']} |")
    return "\n".join([*spread, "", *beside, "", *held])


def _cells(found: Mapping[str, Any] | None, digits: int, *names: str) -> str:
    if found is None:
        return " | ".join("–" * len(names))
    values = (found[name] for name in names)
    return " | ".join(
        "–".join(_number(each, digits) for each in value) if isinstance(value, list) else _number(value, digits)
        for value in values
    )


def _per_second(found: Mapping[str, Any] | None, batch: int) -> str:
    if found is None:
        return "–"
    low, high = (batch * 1e3 / each for each in reversed(found["rounds"]))
    return f"{low:.0f}–{high:.0f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
