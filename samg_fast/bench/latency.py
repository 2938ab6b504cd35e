"""Time of a whole frame and of its stages, on real frames, with the accuracy of the very same calls beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from samg_fast.bench.contenders import Configuration, Shown, identified, labels, open_segmenters, rounds_in_turn
from samg_fast.bench.provenance import heading, provenance
from samg_fast.metrics import iou, percentiles
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.segmenter import Segmenter

__all__ = ["Report", "Times", "markdown", "measure", "run", "summary"]

_Configuration = TypeVar("_Configuration", bound=Configuration)


@dataclass
class Times:
    """Measurements of one configuration, one entry per call.

    Attributes
    ----------
    total : list of float
        Milliseconds of the whole call, by the caller's clock.
    rounds : list of float
        Median of ``total`` in each round.
    stages : dict
        Stage → milliseconds, as the segmenter reports them.
    iou : list of float
        Against the ground truth.
    """

    total: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    iou: list[float] = field(default_factory=list)


def measure(
    segmenters: Mapping[_Configuration, Segmenter],
    shown: Sequence[Shown],
    *,
    rounds: int,
    warm_up: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[_Configuration, Times]:
    """Let the segmenters take turns on the same frames.

    Parameters
    ----------
    segmenters : dict
        Configuration → opened segmenter.
    shown : sequence of Shown
        The frames of a round.
    rounds : int
        How often each configuration sees all of them; every round starts with another configuration.
    warm_up : int
        Frames that each segments at first, untimed.
    advance : callable
        Called after each configuration's part of a round.

    Returns
    -------
    dict
        Configuration → its `Times`.
    """
    targets = identified(segmenters, shown)
    for key, segmenter in segmenters.items():
        for index in range(warm_up):
            segmenter.segment(shown[index % len(shown)].reference, targets[key][index % len(shown)])
    times = {key: Times() for key in segmenters}
    for order in rounds_in_turn(list(segmenters), rounds):
        for key in order:
            _one_round(segmenters[key], shown, targets[key], times[key])
            advance()
    return times


def _one_round(segmenter: Segmenter, shown: Sequence[Shown], targets: Sequence[Any], times: Times) -> None:
    """Segment every frame once, and keep what it took."""
    before = len(times.total)
    for each, target in zip(shown, targets, strict=True):
        for frame, truth in zip(each.frames, each.truths, strict=True):
            started = perf_counter()
            out = segmenter.segment(frame, target)
            times.total.append((perf_counter() - started) * 1e3)
            times.iou.append(iou(out.mask, truth))
            for stage in STAGES:
                if stage in out.timings:  # on a GPU a frame is one launch
                    times.stages[stage].append(out.timings[stage])
    times.rounds.append(float(np.median(times.total[before:])))


def summary(times: Times) -> dict[str, Any]:
    """Reduce measurements to figures, in milliseconds.

    Returns
    -------
    dict
        ``p50``, ``p95``, ``p99`` and ``iqr`` (first and third quartile) over all calls; ``rounds``, the lowest and the
        highest median of a round; ``fps``, frames over their summed time; ``stages``, medians; ``iou``, mean;
        ``frames``, how many calls.
    """
    spread = percentiles(times.total, 25, 50, 75, 95, 99)
    return {
        **{name: spread[name] for name in ("p50", "p95", "p99")},
        "iqr": [spread["p25"], spread["p75"]],
        "rounds": [min(times.rounds), max(times.rounds)],
        "fps": 1e3 * len(times.total) / sum(times.total),
        "stages": {stage: float(np.median(values)) for stage, values in times.stages.items() if values},
        "iou": float(np.mean(times.iou)),
        "frames": len(times.total),
    }


def markdown(figures: dict[str, dict[str, Any]]) -> str:
    """Lay figures out as two Markdown tables: the whole frame with its accuracy, and the medians of the stages.

    Parameters
    ----------
    figures : dict
        Label of a configuration → its `summary`.

    Returns
    -------
    str
        Milliseconds, but for frames/s and IoU.
    """
    whole = [
        "| configuration | p50 | IQR | medians of rounds | p95 | p99 | frames/s | mean IoU |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    stages = [
        "| median of | " + " | ".join(STAGES) + " |",
        "| --- |" + " ---: |" * len(STAGES),
    ]
    for label, each in figures.items():
        low, high = each["iqr"]
        fastest, slowest = each["rounds"]
        whole.append(
            f"| {label} | **{each['p50']:.2f}** | {low:.2f}–{high:.2f} | {fastest:.2f}–{slowest:.2f} | "
            f"{each['p95']:.2f} | {each['p99']:.2f} | {each['fps']:.0f} | {each['iou']:.3f} |"
        )
        cells = (f"{each['stages'][stage]:.3f}" if stage in each["stages"] else "–" for stage in STAGES)
        stages.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([*whole, "", *stages])


@dataclass(frozen=True)
class Report:
    """What was measured, of whom, and who could not be.

    Attributes
    ----------
    about : dict
        As `samg_fast.bench.provenance.provenance` returns it.
    scope : dict
        Setting, size, frames and tasks of a round, rounds, and untimed frames.
    results : dict
        Label of a configuration → its `summary`.
    refused : dict
        Configuration → why it could not be opened.
    """

    about: dict[str, Any]
    scope: dict[str, Any]
    results: dict[str, dict[str, Any]]
    refused: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**self.about, "scope": self.scope, "results": self.results, "not_timed": self.refused}

    def to_markdown(self) -> str:
        """Return the command, what was measured on what, and two tables."""
        height, width = self.scope["size"]
        what = (
            f"Whole frame, {height}×{width} pixels, one at a time, milliseconds; {self.scope['frames']} "
            f"{self.scope['setting']} frames of {self.scope['tasks']} tasks × {self.scope['rounds']} rounds in turn, "
            f"after {self.scope['warm_up']} untimed frames each"
        )
        missing = [f"\nNot timed: {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join([heading(self.about, what), markdown(self.results), *missing])


def run(
    wanted: Sequence[Configuration],
    shown: Sequence[Shown],
    setting: str,
    *,
    rounds: int,
    warm_up: int,
    progress: Callable[[int], AbstractContextManager[Callable[[], None]]],
) -> Report:
    """Open the configurations, let them take turns, and report.

    Parameters
    ----------
    wanted : sequence of Configuration
    shown : sequence of Shown
        The frames of a round, of `setting`.
    setting : str
    rounds, warm_up : int
        As in `measure`.
    progress : callable
        Given the number of steps, a context that yields what is called after each.

    Raises
    ------
    SamgError
        No configuration can be opened; the reason of the first.
    """
    with ExitStack() as stack:
        segmenters, refused = open_segmenters({each: each.open for each in wanted}, stack)
        with progress(rounds * len(segmenters)) as advance:
            times = measure(segmenters, shown, rounds=rounds, warm_up=warm_up, advance=advance)
        scope = {
            "setting": setting,
            "size": list(shown[0].frames.shape[1:3]),
            "frames": sum(len(each.frames) for each in shown),
            "tasks": len(shown),
            "rounds": rounds,
            "warm_up": warm_up,
        }
        results = {label: summary(times[key]) for key, label in labels(segmenters).items()}
    return Report(provenance(), scope, results, {str(key): reason for key, reason in refused.items()})
