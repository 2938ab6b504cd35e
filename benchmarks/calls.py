"""Frames a second by how many frames a call gets, and by how many objects are looked for in each.

All calls take turns on the same frames of the clip pack, round by round; networks are compiled and warmed up before.
A bundle that is fitted to its target has one object. Examples::

    python -m benchmarks.calls --batch 1,16 --bundle tiny --bundle walker_walk
    python -m benchmarks.calls --objects 1,2,4
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer

from benchmarks.common import (
    BackendsOption,
    Configuration,
    JsonOption,
    PrecisionsOption,
    SettingOption,
    configurations,
    one_line_errors,
    progress_bar,
    save_json,
)
from samg_fast.bench.contenders import choose, identified, labels, numbers, open_segmenters, rounds_in_turn
from samg_fast.bench.provenance import heading, provenance
from samg_fast.metrics import percentiles
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from samg_fast import Segmenter
    from samg_fast.bench.contenders import Shown

__all__ = ["Call", "app", "markdown", "measure"]

app = typer.Typer(add_completion=False)


class Call(NamedTuple):
    """One way to call a segmenter.

    Attributes
    ----------
    configuration : Configuration
    batch : int
        Frames in a call.
    objects : int
        Targets in each frame.
    """

    configuration: Configuration
    batch: int
    objects: int


def measure(
    segmenters: dict[Configuration, Segmenter],
    shown: Sequence[Shown],
    batches: Sequence[int],
    objects: Sequence[int],
    *,
    rounds: int,
    warm_up: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[Call, list[float]]:
    """Return the milliseconds of every call.

    Parameters
    ----------
    segmenters : dict
        Configuration → opened segmenter.
    shown : sequence of Shown
        As many tasks as the largest of `objects`; frames are those of the first.
    batches, objects : sequence of int
    rounds, warm_up : int
        Every round has eight calls of each kind, and every kind begins with so many untimed ones.
    advance : callable
        Called after each kind's part of a round.
    """
    ways: dict[Call, Callable[[], object]] = {}
    targets = identified(segmenters, shown)
    for key, segmenter in segmenters.items():
        for batch in batches:
            frames = np.resize(shown[0].frames, (batch, *shown[0].frames.shape[1:]))
            for count in objects if segmenter.needs_target else [1]:
                named = {each.task: target for each, target in zip(shown[:count], targets[key], strict=False)}
                target: Any = targets[key][0] if count == 1 else named
                call = Call(key, batch, count)
                if batch == 1:
                    ways[call] = partial(segmenter.segment, frames[0], target)
                else:
                    ways[call] = partial(segmenter.segment_batch, frames, target)
    times: dict[Call, list[float]] = {call: [] for call in ways}
    for way in ways.values():
        for _ in range(warm_up):
            way()
    for order in rounds_in_turn(list(ways), rounds):
        for call in order:
            for _ in range(8):
                started = perf_counter()
                ways[call]()
                times[call].append((perf_counter() - started) * 1e3)
            advance()
    return times


def markdown(times: dict[Call, list[float]], named: dict[Configuration, str]) -> str:
    """Lay the times out as a table, each beside that of one frame with one object in the same configuration."""
    lines = [
        "| configuration | frames | objects | ms a call, p50 | IQR | frames/s | ms, of one frame with one object |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for call, each in times.items():
        spread = percentiles(each, 25, 50, 75)
        alone = times.get(call._replace(batch=1, objects=1))
        ratio = "–" if alone is None else f"{spread['p50'] / percentiles(alone, 50)['p50']:.2f} ×"
        lines.append(
            f"| {named[call.configuration]} | {call.batch} | {call.objects} | **{spread['p50']:.2f}** | "
            f"{spread['p25']:.2f}–{spread['p75']:.2f} | {1e3 * call.batch / spread['p50']:.0f} | {ratio} |"
        )
    return "\n".join(lines)


@app.command()
def main(
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle to time; repeat for several. [tiny]")] = None,
    backend: BackendsOption = "auto",
    precision: PrecisionsOption = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas. [the backend's]")] = "",
    batch: Annotated[str, typer.Option(help="Frames in a call, separated by commas.")] = "1",
    objects: Annotated[str, typer.Option(help="Objects in each frame, separated by commas.")] = "1",
    setting: SettingOption = "video_hard",
    rounds: Annotated[int, typer.Option(help="Rounds.", min=1)] = 10,
    warm_up: Annotated[int, typer.Option(help="Untimed calls of each kind.", min=0)] = 5,
    json_file: JsonOption = None,
) -> None:
    """Time calls with several frames and several objects, and print a Markdown table."""
    with one_line_errors(), ExitStack() as stack:
        wanted = configurations(bundle, backend, precision, numbers("threads", threads) if threads else [None])
        batches, counts = numbers("batch", batch), numbers("objects", objects)
        pack = load_pack()
        shown = choose(pack, setting, list(pack.tasks)[: max(counts)], 16)
        segmenters, refused = open_segmenters({each: each.open for each in wanted}, stack)
        kinds = len(segmenters) * len(batches) * len(counts)
        with progress_bar("rounds", rounds * kinds) as advance:
            times = measure(segmenters, shown, batches, counts, rounds=rounds, warm_up=warm_up, advance=advance)
        about = provenance()
        height, width = shown[0].frames.shape[1:3]
        what = f"Whole calls, {height}×{width} pixels, {setting}; {rounds} rounds of 8 calls each in turn"
        typer.echo(heading(about, what))
        typer.echo(markdown(times, labels(segmenters)))
        for configuration, reason in refused.items():
            typer.echo(f"\nNot timed: {configuration}: {reason}")
        if json_file is not None:
            rows = [
                {"configuration": str(call.configuration), "frames": call.batch, "objects": call.objects, "ms": each}
                for call, each in times.items()
            ]
            save_json(json_file, {**about, "results": rows})


if __name__ == "__main__":
    app()
