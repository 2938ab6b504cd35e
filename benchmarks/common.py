"""What the benchmark programs share: options, segmenters, frames, taking turns, and where a figure comes from."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import samg_fast
from benchmarks.earlier import EARLIER_TINY, earlier_tiny
from samg_fast.checks import whole_numbers
from samg_fast.devices import machine
from samg_fast.errors import InputError, SamgError
from samg_fast.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from samg_fast import Segmenter
    from samg_fast.checks import Frame, Mask
    from samg_fast.samples import Pack

__all__ = [
    "BackendsOption",
    "Configuration",
    "DinoOption",
    "ExportedOption",
    "JsonOption",
    "PrecisionsOption",
    "SamOption",
    "SettingOption",
    "Shown",
    "TasksOption",
    "choose",
    "configurations",
    "heading",
    "labels",
    "names",
    "numbers",
    "one_line_errors",
    "open_segmenters",
    "progress_bar",
    "provenance",
    "rounds_in_turn",
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

_Key = TypeVar("_Key")

_PACKAGES = ("numpy", "openvino", "onnxruntime", "torch", "nncf", "mujoco", "dm_control", "gymnasium")


@dataclass(frozen=True)
class Configuration:
    """One way to open a bundle.

    Attributes
    ----------
    bundle : str
        Name or folder; `benchmarks.earlier.EARLIER_TINY` is the ``tiny`` of version 0.1.0.
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
        """Load the bundle as configured."""
        bundle = earlier_tiny() if self.bundle == EARLIER_TINY else self.bundle
        return samg_fast.load(bundle, backend=self.backend, precision=self.precision, threads=self.threads)

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", threads {self.threads}"
        return f"{self.bundle}, {self.backend}, {self.precision}{threads}"


def configurations(
    bundles: Sequence[str] | None, backends: str, precisions: str, threads: Sequence[int | None]
) -> list[Configuration]:
    """Combine every bundle (tiny where none is named) with every backend, precision and number of threads."""
    return [Configuration(*each) for each in product(bundles or ["tiny"], names(backends), names(precisions), threads)]


def open_segmenters(
    openers: Mapping[_Key, Callable[[], Segmenter]], stack: ExitStack
) -> tuple[dict[_Key, Segmenter], dict[_Key, str]]:
    """Open the segmenters that can be opened, and keep the reason of each that cannot.

    Parameters
    ----------
    openers : mapping
        What names a segmenter → what opens it, in the order they are to be reported in.
    stack : ExitStack
        Closes the segmenters.

    Returns
    -------
    opened : dict
        Name → segmenter.
    refused : dict
        Name → one sentence.

    Raises
    ------
    SamgError
        None could be opened; the reason of the first.
    """
    opened: dict[_Key, Segmenter] = {}
    refused: dict[_Key, str] = {}
    first: SamgError | None = None
    for name, opener in openers.items():
        try:
            opened[name] = stack.enter_context(opener())
        except SamgError as error:
            first = first or error
            refused[name] = str(error)
    if not opened and first is not None:
        raise first
    return opened, refused


def labels(segmenters: dict[Configuration, Segmenter]) -> dict[Configuration, str]:
    """Name every configuration by what was opened; where two are alike, also by what was asked for."""
    made: dict[Configuration, str] = {}
    for key, segmenter in segmenters.items():
        threads = "" if segmenter.threads is None else f", threads {segmenter.threads}"
        label = f"{segmenter.bundle.name}, {segmenter.backend}, {segmenter.precision}{threads}"
        made[key] = f"{label} ({key})" if label in made.values() else label
    return made


def names(text: str) -> list[str]:
    """Split a comma-separated option into its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(option: str, text: str) -> list[int]:
    """Read the whole numbers of an option, separated by commas, each once.

    Raises
    ------
    InputError
        There is none, or one is not a whole number above 0.
    """
    found = whole_numbers(text)
    if not found:
        raise InputError(f"{option} must be whole numbers above 0, separated by commas, not {text!r}")
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Shown:
    """Frames of one task that every contender sees.

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
    reference: Frame
    reference_mask: Mask
    frames: Frame
    truths: Mask


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
        recorded, truths = task.settings[setting]
        chosen = np.unique(np.linspace(0, len(recorded) - 1, min(frames, len(recorded))).round().astype(int))
        shown.append(Shown(name, task.reference, task.reference_mask, recorded[chosen], truths[chosen]))
    return shown


def rounds_in_turn(contenders: Sequence[_Key], rounds: int) -> Iterator[Sequence[_Key]]:
    """Yield the order of each round: every round starts with another contender, so that none always comes first."""
    for turn in range(rounds):
        start = turn % len(contenders)
        yield [*contenders[start:], *contenders[:start]]


def provenance(more: Sequence[str] = ()) -> dict[str, Any]:
    """Return where figures come from.

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
    program = f"python -m {module.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name
    return {
        "command": " ".join([program, *sys.argv[1:]]),
        "device": machine.processor(),
        "system": platform.platform(terse=True),
        "commit": _commit(),
        "versions": versions,
    }


def heading(about: Mapping[str, Any], scope: str, hardware: str = "") -> str:
    """Return the lines above a table: the command, what was measured, and on what.

    Parameters
    ----------
    about : mapping
        As `provenance` returns it.
    scope : str
        What was measured, in one line.
    hardware : str
        More than the processor, where something else ran.
    """
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    return (
        f"`{about['command']}`\n\n{scope}\n"
        f"{hardware or about['device']}; commit {about['commit'] or 'unknown'}; {versions}\n"
    )


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
