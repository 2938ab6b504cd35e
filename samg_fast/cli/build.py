"""``samg-fast build``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, TaskID

from samg_fast.cli.common import (
    DeviceOption,
    JsonOption,
    check_backend,
    check_json,
    progress_bar,
    say,
    show_table,
    write_json,
)

if TYPE_CHECKING:
    from samg_fast.engine_cache import EngineReport

_DEFAULT_DEVICE = "cuda"


def build(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A shipped bundle or the folder of one.")],
    backend: Annotated[
        str, typer.Option(metavar="NAME", callback=check_backend, help="What compiles: tensorrt or tensorrt-rtx.")
    ],
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(metavar="X.Y,…", help="Build for GPUs of these kinds, which need not be here; may be repeated."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="fp32, fp16, bf16, separated by commas or repeated; fp32 if not given."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Frames at once to tune for; 1,8 if not given, or what the bundle takes."),
    ] = None,
    device: DeviceOption = _DEFAULT_DEVICE,
    json: JsonOption = None,
) -> None:
    """Compile a bundle's networks before they are needed.

    The engines are stored in the engine cache, where loading the bundle finds them; cached ones are not built again.
    If a GPU here can run them, only engines that agree with the bundle's fp32 files are stored.
    """
    from samg_fast.backends import compiling

    if backend not in compiling():
        raise typer.BadParameter(
            f"{backend} compiles no engines, expected {' or '.join(compiling())}", param_hint="--backend"
        )
    capabilities = _split(compute_capability)
    if capabilities and device != _DEFAULT_DEVICE:
        raise typer.BadParameter("is a GPU here, and --compute-capability names kinds of GPUs", param_hint="--device")
    precisions = _precisions(precision)
    batches = None if batch is None else _batches(batch)
    check_json(json)
    from samg_fast import engine_cache
    from samg_fast.bundle import Bundle
    from samg_fast.bundle.zoo import resolve

    opened = Bundle.open(resolve(bundle))
    reports: list[EngineReport] = []
    with progress_bar(MofNCompleteColumn()) as bar:
        for each in precisions:
            reports += engine_cache.build(
                opened,
                backend=backend,
                precision=each,
                batches=batches,
                capabilities=capabilities,
                device=device,
                watch=lambda role, precision: _Phases(bar, f"{role} {precision}"),
            )
    columns = ("network", "precision", "for", "parity", "engine", "MiB", "seconds")
    show_table(columns, [_row(report) for report in reports], numbers=2, json_to=json)
    say(f"\nengine cache: {reports[0].path.parent}", json_to=json)
    figures = {"bundle": opened.name, "backend": backend, "engines": [report.to_dict() for report in reports]}
    write_json(json, figures)


class _Phases:
    """Draws a bar for every phase of a build, nested phases indented; see `samg_fast.backends.tensorrt.Progress`."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._bar, self._what = bar, what
        self._shown: dict[str, tuple[TaskID, int]] = {}

    def __call__(self, phase: str, done: int, of: int, parent: str | None) -> None:
        if done >= of:
            shown = self._shown.pop(phase, None)
            if shown is not None:
                self._bar.remove_task(shown[0])
        elif phase in self._shown:
            self._bar.update(self._shown[phase][0], completed=done)
        else:
            depth = self._shown[parent][1] + 1 if parent in self._shown else 0
            words = f"{'  ' * depth}{phase}" if depth else f"{self._what}: {phase}"
            self._shown[phase] = (self._bar.add_task(words, total=of, completed=done), depth)


def _row(report: EngineReport) -> tuple[str, ...]:
    size, seconds = f"{report.bytes / (1 << 20):.1f}", f"{report.seconds:.1f}"
    made = "cached" if report.cached else "built"
    return (report.role, report.precision, report.target, report.parity, made, size, seconds)


def _split(values: list[str] | None) -> list[str]:
    """Split values at commas, and remove duplicates."""
    return list(dict.fromkeys(part.strip() for value in values or () for part in value.split(",")))


def _precisions(values: list[str] | None) -> list[str]:
    from samg_fast.bundle import PRECISIONS

    asked = _split(values) or ["fp32"]
    for each in asked:
        if each not in PRECISIONS:
            raise typer.BadParameter(f"{each!r} is none of {', '.join(PRECISIONS)}", param_hint="--precision")
    return asked


def _batches(text: str) -> list[int]:
    from samg_fast.checks import whole_numbers

    batches = whole_numbers(text)
    if not batches:
        raise typer.BadParameter(f"{text!r} is not whole numbers above 0, as in 1,8,32", param_hint="--batch")
    return sorted(set(batches))
