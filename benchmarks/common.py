"""What the benchmark programs share: opening segmenters and saying where a figure comes from."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import samg_fast
from samg_fast.devices import machine
from samg_fast.errors import SamgError
from samg_fast.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from samg_fast import Segmenter

__all__ = [
    "Configuration",
    "DinoOption",
    "ExportedOption",
    "SamOption",
    "labels",
    "names",
    "one_line_errors",
    "open_segmenters",
    "progress_bar",
    "provenance",
    "save_json",
]

SamOption = Annotated[str, typer.Option(help="EfficientViT-SAM: l0, l1, l2, xl0 or xl1.")]
DinoOption = Annotated[str, typer.Option(help="DINOv2: vits14, vitb14, vitl14 or vitg14, each also with -reg.")]
ExportedOption = Annotated[Path | None, typer.Option(help="Keep the exported bundle here, and use it again.")]

_PACKAGES = ("numpy", "openvino", "onnxruntime", "torch", "nncf", "mujoco", "dm_control", "gymnasium")


@dataclass(frozen=True)
class Configuration:
    """One way to open a bundle.

    Attributes
    ----------
    bundle : str
        Name or folder.
    backend, precision : str
        As in `samg_fast.load`; ``"auto"`` is allowed.
    threads : int or None
        CPU threads; None leaves the choice to the backend.
    """

    bundle: str
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def open(self) -> Segmenter:
        """Load the bundle so."""
        return samg_fast.load(self.bundle, backend=self.backend, precision=self.precision, threads=self.threads)

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", threads {self.threads}"
        return f"{self.bundle}, {self.backend}, {self.precision}{threads}"


def open_segmenters(
    configurations: list[Configuration], stack: ExitStack
) -> tuple[dict[Configuration, Segmenter], dict[Configuration, str]]:
    """Open what can be opened, and say why of the rest.

    Parameters
    ----------
    configurations : list of Configuration
        In the order they are to be reported in.
    stack : ExitStack
        Closes the segmenters.

    Returns
    -------
    opened : dict
        Configuration → segmenter.
    refused : dict
        Configuration → one sentence.

    Raises
    ------
    SamgError
        Not one could be opened; the reason of the first.
    """
    opened: dict[Configuration, Segmenter] = {}
    refused: dict[Configuration, str] = {}
    first: SamgError | None = None
    for configuration in configurations:
        try:
            opened[configuration] = stack.enter_context(configuration.open())
        except SamgError as error:
            first = first or error
            refused[configuration] = str(error)
    if not opened and first is not None:
        raise first
    return opened, refused


def labels(segmenters: dict[Configuration, Segmenter]) -> dict[Configuration, str]:
    """Name every configuration by what it came to, and by what was asked for where that is not enough."""
    made: dict[Configuration, str] = {}
    for key, segmenter in segmenters.items():
        threads = "" if segmenter.threads is None else f", threads {segmenter.threads}"
        label = f"{segmenter.bundle.name}, {segmenter.backend}, {segmenter.precision}{threads}"
        made[key] = f"{label} ({key})" if label in made.values() else label
    return made


def names(text: str) -> list[str]:
    """Split a comma-separated option into its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def provenance(more: Sequence[str] = ()) -> dict[str, Any]:
    """Say where figures come from.

    Parameters
    ----------
    more : sequence of str
        Distributions whose versions matter too, where they are installed.

    Returns
    -------
    dict
        ``command``, ``device`` (processor and usable cores), ``system``, ``commit`` (with ``+changes`` where files
        differ from it; None outside a repository) and ``versions``.
    """
    versions = {"samg_fast": samg_fast.__version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None)
    program = f"python -m {module}" if module else Path(sys.argv[0]).name
    return {
        "command": " ".join([program, *sys.argv[1:]]),
        "device": machine.processor(),
        "system": platform.platform(terse=True),
        "commit": _commit(),
        "versions": versions,
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def save_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, whole or not at all."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Progress]:
    """Show a bar on stderr with one task, number 0; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(what, total=total)
        yield bar


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
