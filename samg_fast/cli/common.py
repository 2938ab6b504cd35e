"""Shared by the commands: options, tables, JSON, progress bars, and the handling of Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from samg_fast.backends import BACKENDS, check_name, parse_device
from samg_fast.errors import InputError, MissingExtraError
from samg_fast.files import check_writable, write_text

if TYPE_CHECKING:
    from samg_fast.segmenter import Segmenter

__all__ = [
    "INTERRUPTED",
    "BackendOption",
    "BackgroundOption",
    "BundleOption",
    "CameraOption",
    "DeviceOption",
    "JsonOption",
    "Precision",
    "PrecisionOption",
    "ThreadsOption",
    "check_backend",
    "check_json",
    "check_one",
    "check_shown",
    "extra",
    "graceful_interrupt",
    "json_text",
    "open_segmenter",
    "printable",
    "progress",
    "progress_bar",
    "say",
    "show_table",
    "write_json",
]

STDOUT = Path("-")
INTERRUPTED = 130


class Precision(str, Enum):
    """The values of ``--precision``."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


def check_backend(name: str) -> str:
    """Check the value of ``--backend``."""
    try:
        check_name(name)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def _device(text: str) -> str:
    """Check the value of ``--device``."""
    try:
        parse_device(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    return text


BackgroundOption = Annotated[
    str,
    typer.Option(
        metavar="COLOUR|noise|blur|grey|PATH",
        help="What stands where the target does not: a colour, noise, the frame blurred or grey, or a picture, a "
        "video or a folder of these.",
    ),
]
CameraOption = Annotated[
    str | None,
    typer.Option(metavar="N|URL", show_default=False, help="A camera instead: its number, or rtsp://… and the like."),
]
BundleOption = Annotated[str, typer.Option(metavar="NAME|FOLDER", help="A shipped bundle or the folder of one.")]
BackendOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(("auto", *BACKENDS)),
        callback=check_backend,
        help="What runs the networks.",
    ),
]
PrecisionOption = Annotated[Precision, typer.Option(help="What they run in.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N", callback=_device, help="Where they run; auto takes a GPU if the backend can."
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; by default the backend decides.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON too; - for stdout.")
]


def open_segmenter(bundle: str, backend: str, precision: Precision, device: str, threads: int | None) -> Segmenter:
    """Open a bundle with the values of the five options."""
    import samg_fast

    return samg_fast.load(bundle, backend=backend, precision=precision.value, threads=threads, device=device)


@contextmanager
def extra(what: str, name: str) -> Iterator[None]:
    """Turn a failed import into an error that names the extra to install.

    Parameters
    ----------
    what : str
        The feature that needs the packages: "distillation".
    name : str
        The extra that installs them: "distill".

    Raises
    ------
    MissingExtraError
        A module of another package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "samg_fast":
            raise
        raise MissingExtraError(what, name) from error


def check_one(given: object, hint: str, other: object, option: str) -> None:
    """Refuse two sources, or none: an argument or option, and another option that takes its place."""
    if (given is None) == (other is None):
        raise typer.BadParameter(f"or {option} must be given, and not both", param_hint=hint)


def check_shown(segmenter: Segmenter, target: object) -> None:
    """Refuse to segment without a target, unless the bundle is fitted to one."""
    if not target and segmenter.needs_target:
        raise typer.BadParameter(f"bundle {segmenter.bundle.name} must be shown what to cut out", param_hint="-t")


def check_json(path: Path | None) -> None:
    """Check that the file of ``--json`` can be written, before the work starts."""
    if path is not None and path != STDOUT:
        check_writable(path)


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write figures to the file of ``--json``, if it was given."""
    if path is None:
        return
    text = json_text(figures)
    if path == STDOUT:
        sys.stdout.write(text)
    else:
        write_text(path, text)


def json_text(figures: Mapping[str, Any]) -> str:
    """Return figures as JSON; bytes of file names that are not UTF-8 become escapes that `os.fsencode` takes back."""
    return printable(json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def printable(text: str) -> str:
    r"""Write bytes of file names that are not UTF-8 as ``\udcXX``, which JSON reads as Python does."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def say(text: str, *, json_to: Path | None = None) -> None:
    """Print a line for people: to stdout, or to stderr where the JSON goes to stdout."""
    typer.echo(printable(text), err=json_to == STDOUT)


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0, json_to: Path | None = None
) -> None:
    """Print a table for people, to the same stream as `say`.

    Parameters
    ----------
    headings : sequence of str
    rows : iterable of sequences
    numbers : int
        Number of columns, counted from the last, that are right-aligned.
    json_to : pathlib.Path, optional
        The ``--json`` option.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=any(headings))
    for number, heading in enumerate(headings):
        is_number = number >= len(headings) - numbers
        # Text may wrap, numbers must not
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(stderr=json_to == STDOUT, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr while the block runs, if stdout and stderr are terminals.

    Yields
    ------
    callable
        Call it after every step.
    """
    with progress_bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def progress_bar(*counters: ProgressColumn) -> Progress:
    """Return a progress bar on stderr with these counter columns; hidden unless stdout and stderr are terminals."""
    columns = (TextColumn("{task.description}"), BarColumn(), *counters, TimeRemainingColumn())
    visible = sys.stderr.isatty() and sys.stdout.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not visible)


@contextmanager
def graceful_interrupt() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end a loop after the current step; a second Ctrl-C interrupts immediately.

    Yields
    ------
    callable
        Returns True once Ctrl-C was pressed.
    """
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may handle signals, and a background job that ignores Ctrl-C must continue to ignore it.
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield asked.is_set
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
