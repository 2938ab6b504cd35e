"""Who is measured, on which frames, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

import samg_fast
from samg_fast.checks import Frame, Mask, whole_numbers
from samg_fast.errors import InputError, SamgError
from samg_fast.samples import Pack
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target

__all__ = [
    "Configuration",
    "Shown",
    "choose",
    "identified",
    "labels",
    "names",
    "numbers",
    "open_segmenters",
    "rounds_in_turn",
]

_Key = TypeVar("_Key")
_Configuration = TypeVar("_Configuration", bound="Configuration")


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
        """Load the bundle as configured."""
        return samg_fast.load(self.bundle, backend=self.backend, precision=self.precision, threads=self.threads)

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", threads {self.threads}"
        return f"{self.bundle}, {self.backend}, {self.precision}{threads}"


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


def labels(segmenters: Mapping[_Configuration, Segmenter]) -> dict[_Configuration, str]:
    """Name every configuration by what was opened; where two are alike, also by what was asked for."""
    made: dict[_Configuration, str] = {}
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


def identified(segmenters: Mapping[_Key, Segmenter], shown: Sequence[Shown]) -> dict[_Key, list[Target | None]]:
    """Return what each segmenter is to be shown for each task; None where it is fitted to its target."""
    return {
        key: [segmenter.target_for(each.reference, each.reference_mask) for each in shown]
        for key, segmenter in segmenters.items()
    }


def rounds_in_turn(contenders: Sequence[_Key], rounds: int) -> Iterator[Sequence[_Key]]:
    """Yield the order of each round: every round starts with another contender, so that none always comes first."""
    for turn in range(rounds):
        start = turn % len(contenders)
        yield [*contenders[start:], *contenders[:start]]
