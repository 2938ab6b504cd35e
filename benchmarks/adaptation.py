"""Adaptation: how long `Segmenter.adapt` takes, and whether it learns what the official procedure learns.

The official procedure decodes again at each of its 1,000 steps. Here it runs so, in PyTorch, on reproducible weights
and a reference image of the clip pack with human points on its target; the exported bundle of the same weights adapts
to the same image. The shipped bundle has no official counterpart, so of it there is only a time. Example::

    python -m benchmarks.adaptation --sam l0 --dino vits14 --json adaptation.json
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.common import (
    Configuration,
    DinoOption,
    ExportedOption,
    JsonOption,
    SamOption,
    one_line_errors,
    save_json,
)
from benchmarks.official.contenders import SegmenterContender, painted
from samg_fast.bench.contenders import Shown, choose
from samg_fast.bench.provenance import heading, provenance
from samg_fast.errors import MissingExtraError
from samg_fast.samples import load_pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from samg_fast import Segmenter, Target
    from samg_fast.checks import Mask

__all__ = ["DIFFERENCE", "SECONDS", "SHIPPED_SECONDS", "app", "human_points", "markdown", "measure"]

app = typer.Typer(add_completion=False)

SECONDS = 5.0
"""How long adapting an official bundle may take."""

SHIPPED_SECONDS = 1.0
"""How long adapting the shipped bundle may take."""

DIFFERENCE = 0.02
"""How far a learned weight may be from the official procedure's."""

_STEPS = 1000


def human_points(mask: Mask, count: int) -> NDArray[np.int64]:
    """Put points on a target, evenly spread over its pixels in row-major order.

    Parameters
    ----------
    mask : (H, W) bool array
        Not empty.
    count : int
        How many points.

    Returns
    -------
    (count, 2) int64 array
        As (x, y).
    """
    pixels = np.argwhere(mask)[:, ::-1]
    chosen = ((np.arange(count) + 0.5) / max(count, 1) * len(pixels)).astype(int)
    return np.asarray(pixels[chosen])


def measure(segmenter: Segmenter, target: Target, shown: Shown, rounds: int) -> tuple[list[float], list[float]]:
    """Adapt several times, after once that does not count.

    Parameters
    ----------
    segmenter : Segmenter
    target : Target
        Identified on the reference of `shown`.
    shown : Shown
        Its reference is adapted to.
    rounds : int
        How often.

    Returns
    -------
    seconds : list of float
        Of each round.
    weights : list of 3 float
        What was learned.
    """
    seconds = []
    for _ in range(rounds + 1):
        started = perf_counter()
        adapted = segmenter.adapt(target, shown.reference, shown.reference_mask)
        seconds.append(perf_counter() - started)
    return seconds[1:], adapted.mask_weights.tolist()


def of_shipped(shown: Shown, points: int, rounds: int, threads: int) -> dict[str, Any]:
    """Return the row of the shipped bundle: ``bundle``, ``seconds`` (median), ``bar_seconds`` and ``weights``."""
    with Configuration("tiny", threads=threads).open() as segmenter:
        mask = shown.reference_mask
        target = segmenter.identify(shown.reference, mask, points=human_points(mask, points))
        seconds, weights = measure(segmenter, target, shown, rounds)
    return {"bundle": "tiny", "seconds": float(np.median(seconds)), "bar_seconds": SHIPPED_SECONDS, "weights": weights}


def of_official(
    sam: str, dino: str, shown: Shown, *, points: int, rounds: int, threads: int, steps: int, bundle: Path | None
) -> dict[str, Any]:
    """Return the row of an official bundle, beside what the official procedure learned and how long that took.

    Parameters
    ----------
    sam, dino : str
        Official models.
    shown : Shown
        Its reference is adapted to.
    points, rounds, threads : int
        Human points; how often ours adapts; CPU threads.
    steps : int
        Of the official procedure.
    bundle : Path or None
        Folder of the exported bundle, kept and used again.

    Returns
    -------
    dict
        As of the shipped bundle, and ``official_seconds``, ``official_weights``, ``steps``, ``difference`` (the largest
        of the weights) and ``bar_difference``.

    Raises
    ------
    SamgError
        A name is unknown, or the bundle cannot be exported.
    """
    try:
        from benchmarks.official.models import Official
    except ImportError as error:
        raise MissingExtraError("comparing with PyTorch", "export") from error
    official = Official(sam, dino, threads)
    mask, masked = shown.reference_mask, painted(shown.reference_mask)
    at = human_points(mask, points)
    with ExitStack() as stack:
        ours = official.open("fp32", official.export(bundle, stack, ()), stack)
        assert isinstance(ours, SegmenterContender)
        target = ours.segmenter.identify_masked_picture(shown.reference, masked, points=at)
        seconds, weights = measure(ours.segmenter, target, shown, rounds)
    wanted = official.eager.samg.identify(shown.reference, masked, at.astype(float))
    started = perf_counter()
    learned = official.eager.samg.adapt(wanted, shown.reference, mask, steps=steps).weights.flatten().tolist()
    took = perf_counter() - started
    return {
        "bundle": f"{official.sam}-{official.dino}",
        "seconds": float(np.median(seconds)),
        "bar_seconds": SECONDS,
        "weights": weights,
        "official_seconds": took,
        "official_weights": learned,
        "steps": steps,
        "difference": float(np.abs(np.subtract(weights, learned)).max()),
        "bar_difference": DIFFERENCE,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out as a Markdown table, with the bars."""
    lines = [
        "| bundle | seconds | at most | weights | officially | seconds | largest difference | at most | |",
        "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for each in rows:
        met = each["seconds"] < each["bar_seconds"] and each.get("difference", 0) <= DIFFERENCE
        official = "| | | | "
        if "difference" in each:
            official = (
                f"| {_numbers(each['official_weights'])} | {each['official_seconds']:.1f} "
                f"| **{each['difference']:.4f}** | {DIFFERENCE:g} "
            )
        lines.append(
            f"| {each['bundle']} | **{each['seconds']:.3f}** | {each['bar_seconds']:g} | {_numbers(each['weights'])} "
            f"{official}| {'met' if met else 'missed'} |"
        )
    return "\n".join(lines)


def _numbers(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:.4f}" for weight in weights)


@app.command()
def main(
    sam: SamOption = "l0",
    dino: DinoOption = "vits14",
    bundle: ExportedOption = None,
    only_tiny: Annotated[bool, typer.Option("--tiny", help="Time the shipped bundle alone.")] = False,
    task: Annotated[str, typer.Option(help="Task of the reference image.")] = "walker_walk",
    points: Annotated[int, typer.Option(help="Human points on the target.", min=0)] = 2,
    steps: Annotated[int, typer.Option(help="Steps of the official procedure.", min=1)] = _STEPS,
    rounds: Annotated[int, typer.Option(help="How often ours adapts.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    json_file: JsonOption = None,
) -> None:
    """Time adaptation, compare what it learns with the official procedure, and print a Markdown table."""
    with one_line_errors():
        (shown,) = choose(load_pack(), "original", [task], 1)  # its reference is in the original setting too
        rows = [of_shipped(shown, points, rounds, threads)]
        if not only_tiny:
            how = {"points": points, "rounds": rounds, "threads": threads, "steps": steps}
            rows.append(of_official(sam, dino, shown, bundle=bundle, **how))
        about = provenance()
        what = f"The reference of {task} with {points} human points, seconds"
        typer.echo(heading(about, what, f"{about['device']}, {threads} threads"))
        typer.echo(markdown(rows))
        if steps != _STEPS and not only_tiny:
            typer.echo(f"\nA quick look: the official procedure takes {_STEPS} steps, here it took {steps}.")
        if json_file is not None:
            save_json(json_file, {"rows": rows, **about, "threads": threads, "task": task, "points": points})


if __name__ == "__main__":
    app()
