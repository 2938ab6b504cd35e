"""What a wrapper adds to `segment`, and what one call for many environments saves over one for each.

The environments replay frames of the clip pack inside the package, so that next to nothing else takes time. What a
wrapper adds to a step is that step less what the environment inside and the segmenter took of it, by one clock in one
call; it is held against `segment` of the same frame, which is what the segmenter does with a batch of one. Many
environments are then segmented in one call and in one call each, in turn, frame for frame the same. Example::

    python -m benchmarks.wrappers --backend openvino,onnxruntime --json wrappers.json
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, get_args

import gymnasium
import numpy as np
import typer

from benchmarks.common import (
    BackendsOption,
    Configuration,
    JsonOption,
    PrecisionsOption,
    SettingOption,
    TasksOption,
    configurations,
    one_line_errors,
    progress_bar,
    save_json,
)
from samg_fast.bench.contenders import choose, identified, labels, names, open_segmenters
from samg_fast.bench.provenance import heading, provenance
from samg_fast.metrics import iou, percentiles
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.samples import load_pack
from samg_fast.wrappers.gymnasium import MaskedObservation
from samg_fast.wrappers.masking import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from samg_fast import Segmenter, Target
    from samg_fast.bench.contenders import Shown
    from samg_fast.checks import Frame, Mask
    from samg_fast.results import Segmentation

__all__ = ["MODES", "Calls", "Replay", "Times", "app", "markdown", "measure", "summary"]

app = typer.Typer(add_completion=False)

MODES: tuple[Mode, ...] = get_args(Mode)


class Replay(gymnasium.Env[Any, Any]):
    """Shows frames one after another, for ever, and keeps how long its last step took."""

    def __init__(self, frames: Frame) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, frames.shape[1:], np.uint8)
        self.action_space = gymnasium.spaces.Discrete(1)
        self.frames, self.index, self.took = frames, -1, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin with the first frame again."""
        super().reset(seed=seed, options=options)
        self.index = -1
        return self.frames[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002  # nothing acts
        """Show the next frame."""
        started = perf_counter()
        self.index = (self.index + 1) % len(self.frames)
        shown: tuple[Any, float, bool, bool, dict[str, Any]] = self.frames[self.index], 0.0, False, False, {}
        self.took = perf_counter() - started
        return shown


class Clocked:
    """A segmenter that keeps how long its last call took."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter, self.bundle, self.took = segmenter, segmenter.bundle, 0.0
        self.check_target = segmenter.check_target

    def segment_batch(self, frames: Frame, target: Target | Sequence[Target]) -> list[Segmentation]:
        started = perf_counter()
        found = self.segmenter.segment_batch(frames, target)
        self.took = perf_counter() - started
        return found


@dataclass
class Calls:
    """Measurements of segmenting a frame of every environment.

    Attributes
    ----------
    total : list of float
        Milliseconds of all the frames, one entry per round.
    iou : list of float
        Against the ground truth, one entry per frame.
    stages : dict
        Stage → milliseconds per frame, as the segmenter reports them.
    """

    total: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def add(self, seconds: float, found: Sequence[Segmentation], truths: Sequence[Mask]) -> None:
        """Add a round."""
        self.total.append(seconds * 1e3)
        self.iou += [iou(out.mask, truth) for out, truth in zip(found, truths, strict=True)]
        for stage, values in self.stages.items():
            values += [out.timings[stage] for out in found if stage in out.timings]  # on a GPU a frame is one launch


@dataclass
class Times:
    """Measurements of one configuration.

    Attributes
    ----------
    segment : list of float
        Milliseconds of `segment`, one entry per frame.
    added : dict
        Mode → milliseconds that the wrapper added, one entry per frame.
    single, together : Calls
        Many environments in one call each, and in one call.
    """

    segment: list[float] = field(default_factory=list)
    added: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    single: Calls = field(default_factory=Calls)
    together: Calls = field(default_factory=Calls)


def measure(
    segmenters: dict[Configuration, Segmenter],
    shown: Sequence[Shown],
    *,
    environments: int,
    rounds: int,
    warm_up: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[Configuration, Times]:
    """Let the segmenters take turns.

    Parameters
    ----------
    segmenters : dict
        Configuration → opened segmenter.
    shown : sequence of Shown
        The frames that are replayed.
    environments : int
        How many environments are segmented together; they share out the frames.
    rounds : int
        How often each configuration sees all frames.
    warm_up : int
        Untimed calls at first, of each kind.
    advance : callable
        Called after each configuration's part of a round.

    Returns
    -------
    dict
        Configuration → its `Times`.
    """
    targets = identified(segmenters, shown)
    several = [(task, frame) for task, each in enumerate(shown) for frame in range(len(each.frames))]
    several = [several[index % len(several)] for index in range(environments)]
    frames = np.stack([shown[task].frames[frame] for task, frame in several])
    truths = [shown[task].truths[frame] for task, frame in several]
    of_each = {key: [made[task] for task, _ in several] for key, made in targets.items()}
    for key, segmenter in segmenters.items():
        for _ in range(warm_up):
            segmenter.segment(frames[0], of_each[key][0])
            segmenter.segment_batch(frames, of_each[key])
    times = {key: Times() for key in segmenters}
    for _ in range(rounds):
        for key, segmenter in segmenters.items():
            for each, target in zip(shown, targets[key], strict=True):
                _one_task(segmenter, each, target, times[key])
            _one_round_together(segmenter, frames, of_each[key], truths, times[key])
            advance()
    return times


def _one_task(segmenter: Segmenter, shown: Shown, target: Target | None, times: Times) -> None:
    """Step through a task's frames in every mode, and segment each without a wrapper."""
    clocked, replays = Clocked(segmenter), {mode: Replay(shown.frames) for mode in MODES}
    masked = {
        mode: MaskedObservation(replay, clocked, target, mode=mode)  # type: ignore[arg-type]  # a stand-in
        for mode, replay in replays.items()
    }
    for env in masked.values():
        env.reset()
    for frame in shown.frames:
        started = perf_counter()
        segmenter.segment(frame, target)
        times.segment.append((perf_counter() - started) * 1e3)
        for mode, env in masked.items():
            started = perf_counter()
            env.step(0)
            step = perf_counter() - started
            times.added[mode].append((step - replays[mode].took - clocked.took) * 1e3)


def _one_round_together(
    segmenter: Segmenter,
    frames: Frame,
    targets: Sequence[Target | None],
    truths: Sequence[Mask],
    times: Times,
) -> None:
    """Segment a frame of every environment, one by one and then together."""
    started = perf_counter()
    single = [segmenter.segment(frame, target) for frame, target in zip(frames, targets, strict=True)]
    times.single.add(perf_counter() - started, single, truths)
    started = perf_counter()
    together = segmenter.segment_batch(frames, targets)
    times.together.add(perf_counter() - started, together, truths)


def summary(times: Times, environments: int) -> dict[str, Any]:
    """Reduce measurements to figures; times are medians in milliseconds.

    Returns
    -------
    dict
        ``segment``; ``added`` and ``percent``, mode → what the wrapper adds, in milliseconds and of ``segment``;
        ``single`` and ``together``, frames per second of many environments; ``gain``, the median over the rounds of
        their ratio, and ``gain_iqr``, its first and third quartile; ``iou`` of both, mean; ``stages`` of both, per
        frame.
    """
    segment = float(np.median(times.segment))
    added = {mode: float(np.median(values)) for mode, values in times.added.items()}
    gain = percentiles(np.divide(times.single.total, times.together.total), 25, 50, 75)
    calls = {"single": times.single, "together": times.together}
    return {
        "segment": segment,
        "added": added,
        "percent": {mode: 100 * value / segment for mode, value in added.items()},
        **{name: 1e3 * environments / float(np.median(each.total)) for name, each in calls.items()},
        "gain": gain["p50"],
        "gain_iqr": [gain["p25"], gain["p75"]],
        "iou": {name: float(np.mean(each.iou)) for name, each in calls.items()},
        "stages": {
            name: {stage: float(np.median(values)) for stage, values in each.stages.items() if values}
            for name, each in calls.items()
        },
        "frames": len(times.segment),
        "rounds": len(times.together.total),
    }


def markdown(figures: dict[str, dict[str, Any]], environments: int) -> str:
    """Lay figures out as Markdown tables: what a wrapper adds, many environments together, and where the gain lies.

    Parameters
    ----------
    figures : dict
        Label of a configuration → its `summary`.
    environments : int
        How many environments there are.
    """
    wrapper = [
        "| configuration | segment | " + " | ".join(f"+ {mode}" for mode in MODES) + " |",
        "| --- | ---: |" + " ---: |" * len(MODES),
    ]
    together = [
        f"| configuration | {environments} calls, frames/s | one call, frames/s | gain | IQR | mean IoU, both |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    stages = [
        "| a frame's median of, one by one → together | " + " | ".join(STAGES) + " |",
        "| --- |" + " ---: |" * len(STAGES),
    ]
    for label, each in figures.items():
        cells = (f"{each['added'][mode]:.3f} ({each['percent'][mode]:.2f} %)" for mode in MODES)
        wrapper.append(f"| {label} | {each['segment']:.2f} | " + " | ".join(cells) + " |")
        low, high = each["gain_iqr"]
        accuracy = f"{each['iou']['single']:.3f}, {each['iou']['together']:.3f}"
        together.append(
            f"| {label} | {each['single']:.0f} | {each['together']:.0f} | **{each['gain']:.2f}×** | "
            f"{low:.2f}–{high:.2f} | {accuracy} |"
        )
        alone, shared = each["stages"]["single"], each["stages"]["together"]
        steps = (f"{alone[stage]:.3f} → {shared[stage]:.3f}" if stage in alone else "–" for stage in STAGES)
        stages.append(f"| {label} | " + " | ".join(steps) + " |")
    return "\n".join([*wrapper, "", *together, "", *stages])


@app.command()
def main(
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle to time; repeat for several. [tiny]")] = None,
    backend: BackendsOption = "auto",
    precision: PrecisionsOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [the backend's]", min=1)] = None,
    setting: SettingOption = "video_hard",
    tasks: TasksOption = "",
    environments: Annotated[int, typer.Option(help="Environments that are segmented together.", min=1)] = 16,
    frames: Annotated[int, typer.Option(help="Frames of each task in a round.", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 20,
    warm_up: Annotated[int, typer.Option(help="Untimed calls of each configuration.", min=0)] = 3,
    json_file: JsonOption = None,
) -> None:
    """Time what wrappers add and what batches save, and print Markdown tables."""
    with one_line_errors(), ExitStack() as stack:
        wanted = configurations(bundle, backend, precision, [threads])
        shown = choose(load_pack(), setting, names(tasks), frames)
        segmenters, refused = open_segmenters({each: each.open for each in wanted}, stack)
        with progress_bar("rounds", rounds * len(segmenters)) as advance:
            times = measure(
                segmenters,
                shown,
                environments=environments,
                rounds=rounds,
                warm_up=warm_up,
                advance=advance,
            )
        about = provenance()
        figures = {label: summary(times[key], environments) for key, label in labels(segmenters).items()}
        height, width = shown[0].frames.shape[1:3]
        count = sum(len(each.frames) for each in shown)
        what = (
            f"{height}×{width} pixels, medians in milliseconds; {count} {setting} frames of {len(shown)} tasks × "
            f"{rounds} rounds in turn, after {warm_up} untimed calls each"
        )
        typer.echo(heading(about, what))
        typer.echo(markdown(figures, environments))
        for configuration, reason in refused.items():
            typer.echo(f"\nNot timed: {configuration}: {reason}")
        if json_file is not None:
            scope = {
                "setting": setting,
                "size": [height, width],
                "frames": count,
                "rounds": rounds,
                "warm_up": warm_up,
                "environments": environments,
            }
            save_json(json_file, {**about, "scope": scope, "results": figures})


if __name__ == "__main__":
    app()
