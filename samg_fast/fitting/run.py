"""`fit`: from a teacher and some frames to a bundle of one small network."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from samg_fast.bundle import MANIFEST, Bundle
from samg_fast.checks import Frame, Mask, check_frame, check_mask
from samg_fast.errors import FileError, FitError, InputError, InputTypeError
from samg_fast.files import output_folder, replacing, write_text
from samg_fast.loading import load
from samg_fast.ops.geometry import Letterbox

from .bundle import publish, write_bundle
from .evaluate import Held, Measured, held_out_frames, measure
from .labels import Labels, concatenate, label
from .network import Shape
from .report import write_report
from .train import Settings, State, load_state, train

if TYPE_CHECKING:
    from samg_fast.envs.backgrounds import VideoClip
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = ["LEAST", "FitReport", "check_folder", "fit"]

LEAST = 32
"""Frames with the target that a fit needs at least."""

_LARGEST = 128  # pixels of the network's side
_BLOCKS = 32  # of neighbouring frames, which are alike
_HELD = 8  # every so many blocks and backgrounds are held out
_REPORT = "report.html"
_KEPT = 0.95  # share of the held-out frames that are to count as showing the target

_log = logging.getLogger("samg_fast")


@dataclass(frozen=True)
class FitReport:
    """What came of a fit.

    Attributes
    ----------
    folder : pathlib.Path
        The bundle, with ``report.html``.
    given, labelled, held_out : int
        Frames that were given, that could be used, and how many of these measured the result.
    steps : int
        Training steps.
    seconds : float
        That they took.
    iou, teacher_iou : float
        Mean IoU with the labels of held-out frames, half of them on other backgrounds; None without a teacher.
    ms, teacher_ms : float
        Median milliseconds of a frame on this machine's processor.
    """

    folder: Path
    given: int
    labelled: int
    held_out: int
    steps: int
    seconds: float
    iou: float
    teacher_iou: float | None
    ms: float
    teacher_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "folder": str(self.folder)}


def fit(
    segmenter: Segmenter | None,
    target: Target | None,
    frames: Sequence[Frame],
    out: str | os.PathLike[str],
    *,
    masks: Sequence[Mask] | None = None,
    backgrounds: Sequence[VideoClip] = (),
    name: str | None = None,
    minutes: float | None = None,
    steps: int = Settings.steps,
    seed: int = 0,
    more: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
) -> FitReport:
    """Fit a small network to one target, and write it as a bundle that needs no target.

    Parameters
    ----------
    segmenter : Segmenter or None
        The teacher; None where `masks` are given and there is none to compare with.
    target : Target or None
        What it finds; None where it is fitted to its own.
    frames : sequence of (H, W, 3) uint8 arrays
        RGB; of several sizes they are brought to the first one's.
    out : str or os.PathLike
        The bundle's folder. Its subfolder ``training`` has the labelled frames and the checkpoint.
    masks : sequence of (H, W) bool arrays, optional
        The frames' ground truth, in place of labels by the teacher; an empty one says that the target is absent.
    backgrounds : sequence of VideoClip
        Images to put behind the target, besides procedural ones.
    name : str, optional
        Of the bundle; by default the folder's.
    minutes : float, optional
        Fewer `steps`, if labelling and training take longer than this.
    steps : int
        Training steps.
    seed : int
        Of everything random.
    more : bool
        Go on from the bundle in `out` with new frames; the old ones are trained on too.
    progress : callable
        Called with what is done, the number that is done, and how many there are.
    stop : callable
        Asked after every step; True keeps a checkpoint and raises KeyboardInterrupt.

    Returns
    -------
    FitReport

    Raises
    ------
    InputError, InputTypeError
        There are too few frames with the target, or an argument is invalid.
    BundleError
        The target was made with another bundle.
    FitError
        The network agrees less with the labels of held-out frames than its teacher. Only the report is written.
    FileError
        The folder cannot be written, holds another fit, or with `more` none.
    """
    check_folder(out, more=more)
    began = monotonic()
    folder = output_folder(Path(out))
    training = output_folder(folder / "training")
    if segmenter is None and masks is None:
        raise InputError("segmenter must be given where masks are not: something must say where the target is")
    if segmenter is not None:
        segmenter.check_target(target)
    images, truths = _checked(frames, masks)
    job = _job(images, truths, segmenter, target, steps, minutes, seed)
    if not more:
        _check_job(training, job)
    labels, held, added = _labels(training, job, images, truths, segmenter, target, seed, progress, more=more)
    _check_enough(labels, held, len(images))
    behind = [clip for number, clip in enumerate(backgrounds) if number % _HELD != _HELD - 1]
    others = [clip for number, clip in enumerate(backgrounds) if number % _HELD == _HELD - 1]

    earlier = load_state(training / "checkpoint.pt") if more else None
    shape = Shape(side=_side(*labels.frames.shape[1:3])) if earlier is None else earlier.model.shape
    rate = Settings.rate if earlier is None else Settings.rate / 3  # so that little is forgotten
    left = None if minutes is None else max(minutes - (monotonic() - began) / 60, 0.0)
    settings = Settings(steps=steps, minutes=left, seed=seed, shape=shape, rate=rate)
    state = train(
        labels[np.flatnonzero(~held)],
        behind,
        training / "checkpoint.pt" if earlier is None else training / "more.pt",
        settings,
        weights=None if earlier is None else earlier.model,
        progress=lambda step, last, _: progress("training", step, last),
        stop=stop,
    )
    if state.step < state.steps:
        raise KeyboardInterrupt
    report = _accept(
        state, labels[np.flatnonzero(held)], others, folder, segmenter, target,
        name=name or folder.resolve().name, given=len(images), labelled=added, seed=seed, more=more,
    )  # fmt: skip
    if more:
        for kept, new in (("checkpoint.pt", "more.pt"), ("labels.npz", "more.npz")):
            (training / new).replace(training / kept)
    return report


def _checked(frames: Sequence[Frame], masks: Sequence[Mask] | None) -> tuple[list[Frame], list[Mask] | None]:
    """Return frames of one size, and their masks."""
    if not hasattr(frames, "__len__"):
        raise InputTypeError(f"frames must be a sequence of images, not {type(frames).__name__}")
    if masks is not None and len(masks) != len(frames):
        raise InputError(f"masks must be {len(frames)}, one for each frame, not {len(masks)}")
    if len(frames) < LEAST:
        raise InputError(f"frames are {len(frames)}, and a fit needs at least {LEAST} that show the target")
    images = [check_frame(f"frames[{number}]", frame) for number, frame in enumerate(frames)]
    truths = None
    if masks is not None:
        truths = [
            check_mask(f"masks[{number}]", mask, image.shape) if np.any(mask) else np.zeros(image.shape[:2], bool)
            for number, (mask, image) in enumerate(zip(masks, images, strict=True))
        ]
    size = images[0].shape[:2]
    odd = sum(image.shape[:2] != size for image in images)
    if odd:
        _log.info("%d of %d frames are not %d x %d pixels as the first, and are resized", odd, len(images), *size[::-1])
        images = [_resized(image, size) for image in images]
        truths = None if truths is None else [_resized(mask, size) for mask in truths]
    return images, truths


def _job(
    images: Sequence[Frame],
    truths: Sequence[Mask] | None,
    segmenter: Segmenter | None,
    target: Target | None,
    *numbers: float | None,
) -> str:
    """Return a digest of all that decides what comes out: by it, an interrupted run is known again."""
    digest = sha256(json.dumps(numbers).encode())
    digest.update(b"" if segmenter is None else segmenter.bundle.fingerprint.encode())
    digest.update(b"" if target is None else target.digest.encode())
    for each in (*images, *(truths or ())):
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def check_folder(out: str | os.PathLike[str], *, more: bool) -> None:
    """Check that a fit may go into a folder, before frames are recorded for it.

    Raises
    ------
    FileError
        It holds a fit; or with `more` none.
    """
    folder = Path(out)
    done = (folder / MANIFEST).exists()
    if more and not (done and (folder / "training" / "checkpoint.pt").exists()):
        raise FileError(f"{folder} holds no fitted bundle with its training: fit one before you give it more")
    if done and not more:
        raise FileError(f"{folder} holds a fitted bundle already: give another folder, or give it more frames")


def _check_job(training: Path, job: str) -> None:
    begun = training / "job.json"
    if begun.exists() and json.loads(begun.read_text())["job"] != job:
        raise FileError(f"{training} is of a fit that was interrupted, of other frames or options: remove it")


def _labels(
    training: Path,
    job: str,
    images: Sequence[Frame],
    truths: Sequence[Mask] | None,
    segmenter: Segmenter | None,
    target: Target | None,
    seed: int,
    progress: Callable[[str, int, int], None],
    *,
    more: bool,
) -> tuple[Labels, Mask, int]:
    """Label the frames, unless an interrupted run has done so.

    Returns
    -------
    labels : Labels
        With `more`, the old ones too.
    held : (N,) bool
        Which are held out; with `more`, the old ones stay what they were.
    added : int
        How many are new.
    """
    begun, file = training / "job.json", training / ("more.npz" if more else "labels.npz")
    noted = json.loads(begun.read_text()) if begun.exists() else {}
    if file.exists() and noted.get("job") == job:
        return *_read(file), int(noted["added"])
    known = _read(training / "labels.npz") if more else None
    size = _size(*images[0].shape[:2]) if known is None else known[0].frames.shape[1:3]
    if truths is not None:
        found = Labels(np.stack(images), np.stack(truths))
    else:
        assert segmenter is not None
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("labelling", done, len(images))

        found = label(segmenter, target, np.stack(images), seed=seed, advance=advance)
    small = Labels(
        np.stack([_resized(each, size) for each in found.frames]) if len(found) else np.zeros((0, *size, 3), np.uint8),
        np.stack([_resized(each, size) for each in found.masks]) if len(found) else np.zeros((0, *size), bool),
    )
    # Neighbours are alike: blocks of them are held out together
    blocks = np.arange(len(small)) * min(_BLOCKS, len(small)) // max(len(small), 1)
    held: Mask = blocks % _HELD == _HELD // 2
    every = small if known is None else concatenate([known[0], small])
    held = held if known is None else np.concatenate([known[1], held])
    with replacing(file) as temporary:
        np.savez_compressed(temporary, frames=every.frames, masks=every.masks, held=held)
    write_text(begun, json.dumps({"job": job, "added": len(small)}) + "\n")
    return every, held, len(small)


def _read(file: Path) -> tuple[Labels, Mask]:
    with np.load(file) as arrays:
        return Labels(arrays["frames"], arrays["masks"]), arrays["held"]


def _check_enough(labels: Labels, held: Mask, given: int) -> None:
    shown = int(labels.present.sum())
    if shown < LEAST or not labels.present[held].any():
        raise InputError(
            f"the target is found surely in {shown} of {given} frames, and a fit needs at least {LEAST}: give more "
            "frames that show it, or a reference that looks more like them"
        )


def _accept(
    state: State,
    held: Labels,
    clips: Sequence[VideoClip],
    folder: Path,
    segmenter: Segmenter | None,
    target: Target | None,
    *,
    name: str,
    given: int,
    labelled: int,
    seed: int,
    more: bool,
) -> FitReport:
    """Measure a trained network, and write it unless it is worse than its teacher; the report in any case."""
    frames = held_out_frames(held, clips, seed=seed)
    taught = None if segmenter is None else measure(segmenter, target, frames)
    taught_by = "" if segmenter is None else f", teacher {segmenter.bundle.name}"
    with tempfile.TemporaryDirectory(prefix="samg-fast-") as trial:
        manifest = write_bundle(
            state.model, Path(trial), list(frames.frames),
            name=name, description=f"fitted to one target on {labelled} frames",
            source=f"samg-fast fit, {state.step} steps, seed {seed}{taught_by}",
            target=None if target is None else target.digest,
        )  # fmt: skip
        with load(trial, device="cpu") as student:
            found = measure(student, None, frames)
        report = _reported(
            state, held, frames, found, taught, folder, name=name, given=given, labelled=labelled, more=more
        )
        accuracy = {"network": report.iou} | ({} if report.teacher_iou is None else {"teacher": report.teacher_iou})
        present = round(float(np.clip(np.quantile(found.scores, 1 - _KEPT), 0, 1)), 3)
        publish(Path(trial), replace(manifest, accuracy=accuracy, present=present), folder)
    Bundle.open(folder)
    return report


def _reported(
    state: State,
    held: Labels,
    frames: Held,
    found: Measured,
    taught: Measured | None,
    folder: Path,
    *,
    name: str,
    given: int,
    labelled: int,
    more: bool,
) -> FitReport:
    """Write the report, and refuse a network that is worse than its teacher."""
    report = FitReport(
        folder, given, labelled, len(held), state.step, round(state.seconds, 1), round(found.iou, 4),
        None if taught is None else round(taught.iou, 4), round(found.ms, 3),
        None if taught is None else round(taught.ms, 3),
    )  # fmt: skip
    least = 0.5 if taught is None else taught.iou
    refused = found.iou < least
    verdict = (
        f"{'Refused' if refused else 'Accepted'}: it agrees with the labels of held-out frames by {found.iou:.3f}, and "
        f"must by {least:.3f}."
    )
    rows = _facts(report, frames.clean, found, taught)
    write_report(folder / _REPORT, f"{name}: fitted to one target", verdict, rows, frames, found, taught)
    if refused:
        _forget(folder / "training", more=more)  # so that other options begin anew
        raise FitError(
            f"the fitted network agrees with held-out labels by {found.iou:.3f} and must by {least:.3f}: nothing but "
            f"{folder / _REPORT} is written; give more frames, more steps or other backgrounds"
        )
    return report


def _forget(training: Path, *, more: bool) -> None:
    """Remove what an interrupted run would go on from."""
    for name in ("job.json", *(("more.pt", "more.npz") if more else ("checkpoint.pt", "labels.npz"))):
        (training / name).unlink(missing_ok=True)


def _facts(report: FitReport, clean: int, student: Measured, teacher: Measured | None) -> list[tuple[str, str]]:
    """Return the rows of the report's table."""

    def parts(found: Measured) -> str:
        return f"{found.ious[:clean].mean():.3f} and {found.ious[clean:].mean():.3f}, worst {found.ious.min():.3f}"

    rows = [
        ("frames: given, used, of these held out", f"{report.given}, {report.labelled}, {report.held_out}"),
        ("training", f"{report.steps} steps, {report.seconds / 60:.1f} min"),
        ("IoU on held-out frames as they are and on other backgrounds", parts(student)),
        ("milliseconds a frame", f"{report.ms:.2f}"),
    ]
    if teacher is not None and report.teacher_ms is not None:
        rows += [("… its teacher: IoU", parts(teacher)), ("… milliseconds a frame", f"{report.teacher_ms:.2f}")]
    return rows


def _side(height: int, width: int) -> int:
    """Return the network's side for frames of a size: their longest one, so that pixels stay what they are."""
    longest = max(height, width)
    return min(longest + longest % 2, _LARGEST)


def _size(height: int, width: int) -> tuple[int, int]:
    """Return the size of frames in the network's image."""
    box = Letterbox(height, width, _side(height, width))
    return box.new_height, box.new_width


def _resized(image: Any, size: tuple[int, ...]) -> Any:
    """Resize an image or a mask; one of this size comes back as it is."""
    if image.shape[:2] == tuple(size):
        return image
    if image.dtype == bool:
        return _resized(image.astype(np.uint8) * 255, size) > 127
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
