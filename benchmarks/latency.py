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
    Configuration,
    labels,
    names,
    one_line_errors,
    open_segmenters,
    progress_bar,
    provenance,
    save_json,
)
from samg_fast.errors import InputError
from samg_fast.metrics import iou
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from samg_fast import Segmenter
    from samg_fast.samples import Pack

__all__ = ["Shown", "Times", "app", "choose", "markdown", "measure", "summary"]

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Shown:
    """The frames of one task that are timed.

    Attributes
    ----------
    task : str
        Its name.
    reference, reference_mask : (H, W, 3) uint8, (H, W) bool
        What it is identified from.
    frames, truths : (n, H, W, 3) uint8, (n, H, W) bool
        What is segmented, and its ground truth.
    """

    task: str
    reference: NDArray[np.uint8]
    reference_mask: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    truths: NDArray[np.bool_]


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


def choose(pack: Pack, setting: str, tasks: Sequence[str], frames: int) -> list[Shown]:
    """Pick frames of a pack, evenly over each episode.

    Parameters
    ----------
    pack : Pack
        Where they come from.
    setting : str
        A setting of the pack.
    tasks : sequence of str
        Tasks of the pack; all of them where empty.
    frames : int
        At most so many of each task.

    Returns
    -------
    list of Shown
        One per task.

    Raises
    ------
    InputError
        The pack has no such task or setting; the message says what it has.
    """
    shown = []
    for name in tasks or pack.tasks:
        if name not in pack.tasks:
            raise InputError(f"the clip pack has no task {name!r}: it has {', '.join(pack.tasks)}")
        task = pack.tasks[name]
        if setting not in task.settings:
            raise InputError(f"the clip pack has no setting {setting!r}: it has {', '.join(task.settings)}")
        pictures, truths = task.settings[setting]
        chosen = np.unique(np.linspace(0, len(pictures) - 1, min(frames, len(pictures))).round().astype(int))
        shown.append(Shown(name, task.reference, task.reference_mask, pictures[chosen], truths[chosen]))
    return shown


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
    order = list(segmenters)
    targets = {
        key: [segmenter.identify(each.reference, each.reference_mask) for each in shown]
        for key, segmenter in segmenters.items()
    }
    for key, segmenter in segmenters.items():
        for index in range(warm_up):
            segmenter.segment(shown[index % len(shown)].reference, targets[key][index % len(shown)])
    times = {key: Times() for key in order}
    for turn in range(rounds):
        start = turn % len(order)
        for key in order[start:] + order[:start]:
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
    p25, p50, p75, p95, p99 = np.percentile(times.total, (25, 50, 75, 95, 99)).tolist()
    return {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "iqr": [p25, p75],
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
    backend: Annotated[str, typer.Option(help="Backends, separated by commas.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precisions, separated by commas.")] = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas. [the backend's]")] = "",
    pack: Annotated[Path | None, typer.Option(help="Clip pack; by default the one inside the package.")] = None,
    setting: Annotated[str, typer.Option(help="Setting of the frames.")] = "video_hard",
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas. [all of the pack]")] = "",
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 5,
    warm_up: Annotated[int, typer.Option(help="Untimed frames of each configuration.", min=0)] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Time whole frames and their stages, and print Markdown tables."""
    with one_line_errors(), ExitStack() as stack:
        wanted = [
            Configuration(name, engine, kind, count)
            for name in bundle or ["tiny"]
            for engine in names(backend)
            for kind in names(precision)
            for count in _counts(threads)
        ]
        shown = choose(load_pack(pack), setting, names(tasks), frames)
        segmenters, refused = open_segmenters(wanted, stack)
        with progress_bar("rounds", rounds * len(segmenters)) as bar:
            times = measure(
                segmenters, shown, rounds=rounds, warm_up=warm_up, advance=lambda: bar.advance(bar.task_ids[0])
            )

        about = provenance()
        figures = {label: summary(times[key]) for key, label in labels(segmenters).items()}
        height, width = shown[0].frames.shape[1:3]
        count = sum(len(each.frames) for each in shown)
        typer.echo(f"`{about['command']}`\n")
        typer.echo(
            f"Whole frame, {height}×{width} pixels, one at a time, milliseconds; {count} {setting} frames of "
            f"{len(shown)} tasks × {rounds} rounds in turn, after {warm_up} untimed frames each"
        )
        versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
        typer.echo(f"{about['device']}; commit {about['commit'] or 'unknown'}; {versions}\n")
        typer.echo(markdown(figures))
        for configuration, reason in refused.items():
            typer.echo(f"\nNot timed: {configuration}: {reason}")
        if json_file is not None:
            scope = {"setting": setting, "size": [height, width], "frames": count, "rounds": rounds, "warm_up": warm_up}
            save_json(json_file, {**about, "scope": scope, "results": figures})


def _counts(text: str) -> list[int | None]:
    """Read the thread counts; none given leaves the choice to the backend."""
    if not names(text):
        return [None]
    try:
        counts = [int(part) for part in names(text)]
    except ValueError:
        raise InputError(f"threads must be whole numbers separated by commas, they are {text!r}") from None
    if min(counts) < 1:
        raise InputError(f"threads must be at least 1, they are {text!r}")
    return list(counts)


if __name__ == "__main__":
    app()
