"""Every operation of a frame outside the networks: its time, the floor under it, and the same step in eager PyTorch.

The floor is what a plain copy on the same device and threads would take for the bytes that the operation cannot avoid;
what stays in a cache between two calls can beat it. Ours and the eager reference (`benchmarks.eager`) take turns, step
by step and round by round, each on inputs that are ready: on a GPU those are in its memory, but for the image that
the eager step gives to Pillow, and the last one, to which it applies the mask with NumPy. A time is the mean of calls
in a row where one is too short to be timed. On a GPU ours are timed twice: called as eager PyTorch is, with which they
are compared so, and queued while the GPU is kept busy, which leaves the launches out. Example::

    python -m benchmarks.kernels --device cpu --threads 2 --json kernels.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.common import JsonOption, one_line_errors, progress_bar, save_json
from samg_fast.bench.contenders import names
from samg_fast.bench.provenance import heading, provenance
from samg_fast.devices.machine import cores
from samg_fast.errors import InputError, MissingExtraError, SamgError
from samg_fast.metrics import percentiles

if TYPE_CHECKING:
    from benchmarks.kernels.places import Place
    from benchmarks.kernels.work import Step

__all__ = ["DEVICES", "MODELS", "Times", "app", "difference", "markdown", "measure", "moved", "row"]

app = typer.Typer(add_completion=False)

DEVICES = ("cpu", "cuda")
MODELS = ("l0-vits14", "tiny")

_BLOCK = 2e-4  # seconds that a time should be the mean of
_PAUSE = 5e-3  # seconds before a time is taken: PyTorch's threads stay awake for a while after they have worked
_MAX_CALLS = 50
_QUEUED_CALLS = 20  # a GPU queues about a thousand launches


@dataclass
class Times:
    """Milliseconds, one entry a round.

    Parameters
    ----------
    ours, eager : list of float
        As they are called.
    queued : list of float
        Ours without the launches; empty on a processor.
    """

    ours: list[float] = field(default_factory=list)
    eager: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)


def measure(
    steps: Sequence[Step], place: Place, rounds: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Times]:
    """Let ours and the eager reference take turns, after both are warmed up.

    Parameters
    ----------
    steps : sequence of Step
    place : Place
    rounds : int
        In every other round the eager reference goes first.
    advance : callable
        Called after each round.

    Returns
    -------
    dict
        Name of a step -> its `Times`.
    """
    times = {step.op: Times() for step in steps}
    turns = [
        (
            (times[step.op].ours, step.ours, _calls(step.ours, place)),
            (times[step.op].eager, step.eager, _calls(step.eager, place)),
        )
        for step in steps
    ]
    for turn in range(rounds):
        for step, pair in zip(steps, turns, strict=True):
            for kept, call, count in pair[:: -1 if turn % 2 else 1]:
                sleep(_PAUSE)
                call()  # the clock and the caches are as after other work again
                kept.append(place.seconds(call, count) * 1e3)
            if place.queued_seconds is not None:
                times[step.op].queued.append(place.queued_seconds(step.ours, _QUEUED_CALLS) * 1e3)
        advance()
    return times


def _calls(call: Callable[[], object], place: Place) -> int:
    """Warm a call up, and say how many of it in a row are long enough to be timed."""
    once = min(place.seconds(call, 1) for _ in range(3))
    return min(max(ceil(_BLOCK / once), 1), _MAX_CALLS)


def moved(step: Step, place: Place) -> int:
    """Count the bytes that a step cannot avoid: its arguments and its results."""
    return step.read + sum(place.get(each).nbytes for each in step.ours().values())


def difference(step: Step, place: Place) -> float:
    """Return the largest difference between any number of ours and the eager reference's."""
    ours, eager = step.ours(), step.eager()
    largest = 0.0
    for name, other in eager.items():
        one, two = (np.squeeze(each).astype(np.float64) for each in (place.get(ours[name]), _on_host(other)))
        if one.shape != two.shape:
            raise ValueError(f"{step.op}: {name} is of shape {one.shape}, in eager PyTorch of {two.shape}")
        largest = max(largest, float(np.abs(one - two).max()))
    return largest


def _on_host(array: Any) -> NDArray[Any]:
    if isinstance(array, list):
        return np.stack([_on_host(each) for each in array])
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def row(model: str, step: Step, times: Times, place: Place, bytes_per_second: float) -> dict[str, Any]:
    """Reduce the times of a step to a row of the table.

    Returns
    -------
    dict
        ``op``, ``model``, ``device`` and ``threads``; ``ms_p50`` and ``ms_iqr`` (first and third quartile) of ours in
        milliseconds, on a GPU queued; ``bytes`` and ``operations``, what it cannot avoid; ``floor_ms``, what a copy of
        these bytes takes, and ``floor_ratio``, how many times longer ours does; ``called_ms_p50``, ours as it is
        called; ``eager_ms_p50`` and ``ratio_vs_eager``, how many times faster ours is, called; ``difference``, the
        largest between their results.
    """
    spread = percentiles(times.queued or times.ours, 25, 50, 75)
    called, eager = float(np.median(times.ours)), float(np.median(times.eager))
    size = moved(step, place)
    floor = size / bytes_per_second * 1e3
    return {
        "op": step.op,
        "model": model,
        "device": place.name,
        "threads": place.threads,
        "ms_p50": spread["p50"],
        "ms_iqr": [spread["p25"], spread["p75"]],
        "bytes": size,
        "operations": step.operations,
        "floor_ms": floor,
        "floor_ratio": spread["p50"] / floor,
        "called_ms_p50": called,
        "eager_ms_p50": eager,
        "ratio_vs_eager": eager / called,
        "difference": difference(step, place),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out as a Markdown table; milliseconds, thousands of bytes and of operations."""
    lines = [
        "| operation | kB | kOp | floor | p50 | IQR | × floor | eager p50 | × eager | difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in rows:
        low, high = each["ms_iqr"]
        lines.append(
            f"| {each['op']} | {each['bytes'] / 1e3:.1f} | {each['operations'] / 1e3:.1f} | {each['floor_ms']:.4f} | "
            f"**{each['ms_p50']:.4f}** | {low:.4f}–{high:.4f} | {each['floor_ratio']:.1f} | "
            f"{each['eager_ms_p50']:.3f} | **{each['ratio_vs_eager']:.1f}** | {each['difference']:.1g} |"
        )
    return "\n".join(lines)


@app.command()
def main(
    device: Annotated[str, typer.Option(help="cpu, cuda or both, separated by a comma. [cpu, and cuda if any]")] = "",
    models: Annotated[
        list[str] | None, typer.Option(help="Model or bundle to take sizes of; repeatable. [both]")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the frame, in pixels.", min=8)] = 84,
    features: Annotated[int, typer.Option(help="Features: the target's and its parts'.", min=1, max=64)] = 4,
    threads: Annotated[int | None, typer.Option(help="CPU threads of ours and of PyTorch. [all]", min=1)] = None,
    rounds: Annotated[int, typer.Option(help="Rounds, and so times of each step.", min=1)] = 30,
    copy_mib: Annotated[int, typer.Option(help="MiB to copy for the bandwidth: more than caches hold.", min=1)] = 1024,
    json_file: JsonOption = None,
) -> None:
    """Time every operation against its floor and against eager PyTorch, and print Markdown tables."""
    with one_line_errors():
        scope = {"size": [size, size], "features": features, "rounds": rounds, "copy_mib": copy_mib}
        places, refused = _places(names(device), threads or cores())
        figures = _figures(places, models or MODELS, scope)
        typer.echo(_report(figures))
        for reason in refused:
            typer.echo(f"\nNot measured: {reason}")
        if json_file is not None:
            save_json(json_file, figures)


def _places(wanted: Sequence[str], threads: int) -> tuple[list[Place], list[str]]:
    """Open the devices that are wanted; if none is named, those that there are, and say why of a GPU that cannot be."""
    for name in wanted:
        if name not in DEVICES:
            raise InputError(f"device must be {' or '.join(DEVICES)}, not {name!r}")
    try:
        from benchmarks.kernels.places import open_cpu, open_cuda
    except ImportError as error:
        raise MissingExtraError("comparing with PyTorch", "export") from error
    places, refused = [], []
    if "cpu" in wanted or not wanted:
        places.append(open_cpu(threads))
    if "cuda" in wanted or not wanted:
        try:
            places.append(open_cuda(threads))
        except SamgError as error:
            if wanted:
                raise
            refused.append(str(error))
    return places, refused


def _figures(places: Sequence[Place], models: Sequence[str], scope: dict[str, Any]) -> dict[str, Any]:
    """Measure every model on every device."""
    from benchmarks.kernels.inputs import sizes_of
    from benchmarks.kernels.places import bandwidth
    from benchmarks.kernels.work import opened

    sizes = [sizes_of(model, scope["size"][0], scope["features"]) for model in models]
    speeds, rows = {}, []
    with progress_bar("rounds", len(places) * len(sizes) * scope["rounds"]) as advance:
        for place in places:
            speeds[place.name] = speed = bandwidth(place, scope["copy_mib"] << 20)
            for one in sizes:
                with opened(one, place) as steps:
                    times = measure(steps, place, scope["rounds"], advance)
                    rows += [row(one.model, step, times[step.op], place, speed) for step in steps]
    accelerators = {place.name: place.hardware for place in places if place.hardware}
    gigabytes = {name: speed / 1e9 for name, speed in speeds.items()}
    return {"rows": rows, **provenance(), **accelerators, "gb_per_second": gigabytes, "scope": scope}


def _report(figures: dict[str, Any]) -> str:
    """Write figures as Markdown: where they come from, then a table for each device and model."""
    scope = figures["scope"]
    hardware = ", ".join(figures[key] for key in ("device", "cuda") if key in figures)
    height, width = scope["size"]
    what = f"{height}×{width} pixels, {scope['features']} features, milliseconds; {scope['rounds']} rounds in turn"
    lines = [heading(figures, what, hardware).rstrip()]
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in figures["rows"]:
        tables.setdefault((each["device"], each["model"]), []).append(each)
    for (name, model), rows in tables.items():
        threads = "" if rows[0]["threads"] is None else f", threads {rows[0]['threads']}"
        speed = figures["gb_per_second"][name]
        lines += [f"\n{model}, {name}{threads}; a copy reads and writes {speed:.1f} GB/s\n", markdown(rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
