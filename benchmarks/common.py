"""What the benchmark programs share beside `samg_fast.bench`: options, configurations, errors and progress."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.earlier import EARLIER_TINY, earlier_tiny
from samg_fast.bench import contenders
from samg_fast.bench.contenders import names
from samg_fast.errors import SamgError
from samg_fast.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from samg_fast import Segmenter

__all__ = [
    "BackendsOption",
    "Configuration",
    "DinoOption",
    "ExportedOption",
    "JsonOption",
    "PrecisionsOption",
    "SamOption",
    "SettingOption",
    "TasksOption",
    "configurations",
    "one_line_errors",
    "progress_bar",
    "save_json",
]

SamOption = Annotated[str, typer.Option(help="EfficientViT-SAM: l0, l1, l2, xl0 or xl1.")]
DinoOption = Annotated[str, typer.Option(help="DINOv2: vits14, vitb14, vitl14 or vitg14, each also with -reg.")]
ExportedOption = Annotated[Path | None, typer.Option(help="Keep the exported bundle here, and use it again.")]
BackendsOption = Annotated[str, typer.Option(help="Backends, separated by commas.")]
PrecisionsOption = Annotated[str, typer.Option(help="Precisions, separated by commas.")]
SettingOption = Annotated[str, typer.Option(help="Setting of the frames.")]
TasksOption = Annotated[str, typer.Option(help="Tasks, separated by commas. [all of the pack]")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]


@dataclass(frozen=True)
class Configuration(contenders.Configuration):
    """One way to open a bundle, also that of version 0.1.0, which is called `benchmarks.earlier.EARLIER_TINY`."""

    def open(self) -> Segmenter:
        """Load the bundle as configured."""
        if self.bundle == EARLIER_TINY:
            return replace(self, bundle=str(earlier_tiny())).open()
        return super().open()


def configurations(
    bundles: Sequence[str] | None, backends: str, precisions: str, threads: Sequence[int | None]
) -> list[Configuration]:
    """Combine every bundle (tiny where none is named) with every backend, precision and number of threads."""
    return [Configuration(*each) for each in product(bundles or ["tiny"], names(backends), names(precisions), threads)]


def save_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, whole or not at all."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr, nothing where that is no terminal, and yield what advances it, by one step or by more."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield partial(bar.advance, bar.add_task(what, total=total))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the package's own errors into one line on stderr and exit status 1, an interrupt into 130."""
    try:
        yield
    except SamgError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was written", err=True)
        raise typer.Exit(130) from None
