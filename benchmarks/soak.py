"""Whether memory grows while wrapped environments are stepped for long: resident memory of this process at intervals.

The environments replay frames of the clip pack inside the package, in episodes of 50 steps, so that nearly all the
time goes to the segmenter. Now and then a score below the threshold loses the target, and the mask before is held:
nothing else that a wrapper does keeps more in memory. The kind ``episodes`` is no wrapper: it segments whole episodes
of unequal length at once. The kinds take turns in one process. Example::

    python -m benchmarks.soak --kind gymnasium --steps 100000 --threads 1 --json soak.json
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import dm_env
import numpy as np
import typer
from dm_env import specs
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from benchmarks.common import Configuration, JsonOption, SettingOption, one_line_errors, progress_bar, save_json
from benchmarks.wrappers import Replay
from samg_fast.bench.contenders import choose, labels, names
from samg_fast.bench.provenance import heading, provenance
from samg_fast.errors import InputError
from samg_fast.samples import load_pack
from samg_fast.wrappers.dm_env import MaskedPixels
from samg_fast.wrappers.gymnasium import MaskedObservation
from samg_fast.wrappers.vector import MaskedObservation as MaskedVector

if TYPE_CHECKING:
    from collections.abc import Callable

    from samg_fast import Segmenter, Target
    from samg_fast.checks import Frame

__all__ = ["KINDS", "app", "growth", "markdown", "measure"]

app = typer.Typer(add_completion=False)

EPISODE = 50
ENVIRONMENTS = 4
THRESHOLD = 0.7
"""Of the score: about a third of the frames of walker_walk in video_hard are below, and the mask before is held."""


class ReplayDm(dm_env.Environment):  # type: ignore[misc]  # dm_env has no types
    """Shows frames one after another, in episodes."""

    def __init__(self, frames: Frame) -> None:
        self.frames, self.index = frames, -1

    def reset(self) -> Any:
        self.index = 0
        return dm_env.restart({"pixels": self.frames[0]})

    def step(self, action: Any) -> Any:  # noqa: ARG002  # nothing acts
        if self.index < 0:
            return self.reset()
        self.index += 1
        observation = {"pixels": self.frames[self.index % len(self.frames)]}
        if self.index < EPISODE:
            return dm_env.transition(0.0, observation)
        self.index = -1
        return dm_env.truncation(0.0, observation)

    def observation_spec(self) -> Any:
        return {"pixels": specs.BoundedArray(self.frames.shape[1:], np.uint8, 0, 255, "pixels")}

    def action_spec(self) -> Any:
        return specs.DiscreteArray(1)


def _gymnasium(segmenter: Segmenter, target: Target | None, frames: Frame) -> Callable[[], int]:
    env = MaskedObservation(
        TimeLimit(Replay(frames), EPISODE), segmenter, target, mode="rgbm", threshold=THRESHOLD, lost="hold"
    )
    env.reset()

    def step() -> int:
        if env.step(0)[3]:
            env.reset()
        return 1

    return step


def _dm_env(segmenter: Segmenter, target: Target | None, frames: Frame) -> Callable[[], int]:
    env = MaskedPixels(ReplayDm(frames), segmenter, target, mode="rgbm", threshold=THRESHOLD, lost="hold")

    def step() -> int:
        env.step(0)
        return 1

    return step


def _vector(segmenter: Segmenter, target: Target | None, frames: Frame) -> Callable[[], int]:
    inside = SyncVectorEnv(
        [lambda: TimeLimit(Replay(frames), EPISODE)] * ENVIRONMENTS, autoreset_mode=AutoresetMode.SAME_STEP
    )
    env = MaskedVector(inside, segmenter, target, mode="rgbm", threshold=THRESHOLD, lost="hold")
    env.reset()
    actions = np.zeros(ENVIRONMENTS, np.int64)

    def step() -> int:
        env.step(actions)
        return ENVIRONMENTS

    return step


def _episodes(segmenter: Segmenter, target: Target | None, frames: Frame) -> Callable[[], int]:
    """Segment whole episodes, of which no two in a row are as long, as one would whose end is the task's."""
    lengths = np.random.default_rng(0)

    def step() -> int:
        length = int(lengths.integers(1, 2 * EPISODE))
        segmenter.segment_batch(np.resize(frames, (length, *frames.shape[1:])), target)
        return length

    return step


KINDS: dict[str, Callable[[Segmenter, Target | None, Frame], Callable[[], int]]] = {
    "gymnasium": _gymnasium,
    "dm_env": _dm_env,
    "vector": _vector,
    "episodes": _episodes,
}
"""Wrapper, or batches of unequal size → what makes a step, which says how many frames it took."""


def resident() -> float:
    """Return this process's resident memory in MiB, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(
    step: Callable[[], int], steps: int, warm_up: int, readings: int, advance: Callable[[int], None] = lambda _: None
) -> list[tuple[int, float]]:
    """Take steps, and read the resident memory at intervals.

    Parameters
    ----------
    step : callable
        Takes one or more steps and says how many.
    steps : int
        How many to take, or a few more where they are taken together.
    warm_up : int
        How many come before the first reading.
    readings : int
        How many more readings, at equal intervals.
    advance : callable
        Called after each `step` with what it says.

    Returns
    -------
    list of (int, float)
        Steps taken, and MiB.
    """
    read: list[tuple[int, float]] = []
    taken = 0
    for due in np.linspace(warm_up, steps, readings + 1).round().astype(int).tolist():
        while taken < due:
            just = step()
            taken += just
            advance(just)
        read.append((taken, resident()))
    return read


def growth(read: list[tuple[int, float]]) -> float:
    """Return by how many MiB memory grew from the first reading to the last."""
    return read[-1][1] - read[0][1]


def markdown(read: dict[str, list[tuple[int, float]]]) -> str:
    """Lay readings out as a Markdown table, a row for each reading and a column for each wrapper."""
    rows = [
        f"| step | {' | '.join(f'{kind}, MiB' for kind in read)} |",
        "| ---: |" + " ---: |" * len(read),
    ]
    for at in zip(*read.values(), strict=True):
        rows.append(f"| {at[0][0]:,} | " + " | ".join(f"{mib:.2f}" for _, mib in at) + " |")
    rows.append("| growth | " + " | ".join(f"**{growth(each):+.2f}**" for each in read.values()) + " |")
    return "\n".join(rows)


@app.command()
def main(
    kind: Annotated[str, typer.Option(help="Wrappers, separated by commas. [all]")] = "",
    bundle: Annotated[str, typer.Option(help="Bundle that segments.")] = "tiny",
    backend: Annotated[str, typer.Option(help="Backend.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precision.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [the backend's]", min=1)] = None,
    task: Annotated[str, typer.Option(help="Task of the clip pack whose frames are shown.")] = "walker_walk",
    setting: SettingOption = "video_hard",
    steps: Annotated[int, typer.Option(help="Steps with each wrapper.", min=1)] = 100_000,
    warm_up: Annotated[int, typer.Option(help="How many of them come before the first reading.", min=0)] = 2_000,
    readings: Annotated[int, typer.Option(help="Readings after the first.", min=1)] = 10,
    json_file: JsonOption = None,
) -> None:
    """Step wrapped environments for long, and print how much memory the process holds as a Markdown table."""
    with one_line_errors():
        kinds = names(kind) or list(KINDS)
        for unknown in set(kinds) - KINDS.keys():
            raise InputError(f"--kind must be of {', '.join(KINDS)}, not {unknown!r}")
        if warm_up >= steps:
            raise InputError(f"--warm-up must be less than the {steps} steps, not {warm_up}")
        (shown,) = choose(load_pack(), setting, [task], EPISODE)
        configuration = Configuration(bundle, backend, precision, threads)
        read = {}
        with configuration.open() as segmenter, progress_bar("steps", steps * len(kinds)) as advance:
            target = segmenter.target_for(shown.reference, shown.reference_mask)
            for each in kinds:
                step = KINDS[each](segmenter, target, shown.frames)
                read[each] = measure(step, steps, warm_up, readings, advance)
            (label,) = labels({configuration: segmenter}).values()
        about = provenance()
        typer.echo(heading(about, f"Resident memory of the process; {label}; frames of {task}, {setting}"))
        typer.echo(markdown(read))
        if json_file is not None:
            scope = {"label": label, "task": task, "setting": setting, "steps": steps, "warm_up": warm_up}
            results = {each: {"growth": growth(points), "resident": points} for each, points in read.items()}
            save_json(json_file, {**about, "scope": scope, "results": results})


if __name__ == "__main__":
    app()
