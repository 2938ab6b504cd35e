"""Time of a whole frame and of its stages, on real frames, with the accuracy of the very same calls beside it.

Frames come from the clip pack inside the package. Configurations (bundle × backend × precision × threads) take turns,
round by round, so that a machine that slows down slows all of them. Networks are compiled and warmed up before the
first round. What is timed is the whole call, from a frame in memory to its mask in memory, one frame at a time.
Example::

    python -m benchmarks.latency --backend openvino,onnxruntime --threads 1,2 --json latency.json
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.common import (
    BackendsOption,
    Configuration,
    JsonOption,
    PrecisionsOption,
    SettingOption,
    TasksOption,
    choose,
    configurations,
    heading,
    labels,
    names,
    numbers,
    one_line_errors,
    open_segmenters,
    progress_bar,
    provenance,
    rounds_in_turn,
    save_json,
)
from samg_fast.metrics import iou, percentiles
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.common import Shown
    from samg_fast import Segmenter

__all__ = ["Times", "app", "markdown", "measure", "summary"]

app = typer.Typer(add_completion=False)


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
    segmenters: dict[Configuration, Segmenter],
    shown: Sequence[Shown],
    *,
    rounds: int,
    warm_up: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[Configuration, Times]:
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
    targets = {
        key: [segmenter.target_for(each.reference, each.reference_mask) for each in shown]
        for key, segmenter in segmenters.items()
    }
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


@app.command()
def main(
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle to time; repeat for several. [tiny]")] = None,
    backend: BackendsOption = "auto",
    precision: PrecisionsOption = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas. [the backend's]")] = "",
    pack: Annotated[Path | None, typer.Option(help="Clip pack; by default the one inside the package.")] = None,
    setting: SettingOption = "video_hard",
    tasks: TasksOption = "",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    warm_up: Annotated[int, typer.Option(help="Untimed frames of each configuration.", min=0)] = 10,
    json_file: JsonOption = None,
) -> None:
    """Time whole frames and their stages, and print Markdown tables."""
    with one_line_errors(), ExitStack() as stack:
        wanted = configurations(bundle, backend, precision, numbers("threads", threads) if threads else [None])
        shown = choose(load_pack(pack), setting, names(tasks), frames)
        segmenters, refused = open_segmenters({each: each.open for each in wanted}, stack)
        with progress_bar("rounds", rounds * len(segmenters)) as advance:
            times = measure(segmenters, shown, rounds=rounds, warm_up=warm_up, advance=advance)
        about = provenance()
        figures = {label: summary(times[key]) for key, label in labels(segmenters).items()}
        height, width = shown[0].frames.shape[1:3]
        count = sum(len(each.frames) for each in shown)
        what = (
            f"Whole frame, {height}×{width} pixels, one at a time, milliseconds; {count} {setting} frames of "
            f"{len(shown)} tasks × {rounds} rounds in turn, after {warm_up} untimed frames each"
        )
        typer.echo(heading(about, what))
        typer.echo(markdown(figures))
        for configuration, reason in refused.items():
            typer.echo(f"\nNot timed: {configuration}: {reason}")
        if json_file is not None:
            scope = {"setting": setting, "size": [height, width], "frames": count, "rounds": rounds, "warm_up": warm_up}
            save_json(json_file, {**about, "scope": scope, "results": figures})


if __name__ == "__main__":
    app()
