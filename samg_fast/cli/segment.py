"""``samg-fast segment``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from samg_fast.cli.common import (
    INTERRUPTED,
    BackendOption,
    BackgroundOption,
    BundleOption,
    CameraOption,
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
    check_one,
    check_shown,
    graceful_interrupt,
    json_text,
    open_segmenter,
    printable,
    progress,
    say,
    write_json,
)
from samg_fast.errors import InputError
from samg_fast.files import write_text

if TYPE_CHECKING:
    from samg_fast.formats import Writer
    from samg_fast.media import Frames, NamedFrame, VideoWriter
    from samg_fast.results import Segmentation
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

_WRITTEN = ("overlays", "overlay.mp4", "results.json")


def segment(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="INPUT", show_default=False, help="A picture, a folder of pictures, or a video or animation."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for what comes out.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="[NAME=]FILE",
            show_default=False,
            help="What `samg-fast identify` wrote; repeat for several objects, which are called as their files, or "
            "NAME. A fitted bundle needs none.",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT,…",
            help="Of the masks: png, davis, coco, coco-polygons, npz, yolo, alpha or composite.",
        ),
    ] = "png",
    background: BackgroundOption = "black",
    camera: CameraOption = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How long --camera is watched; by default until Ctrl-C.")
    ] = None,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Cut targets out of a picture, a folder of pictures, a video or a camera.

    DIR gets the masks in every FORMAT (docs/results.md), the masks drawn over the frames as overlay.mp4 (a video) or in
    overlays/ (pictures), and results.json with score, whether the target counts as present, box, area and the
    milliseconds it took of every frame; of a video, also the frame's own time in seconds, which the frames of
    overlay.mp4 keep. If the run is interrupted or a frame cannot be read, what was done until then stays, and
    results.json says that it is not complete. What an earlier run wrote there stays until the first frame is done.
    """
    from samg_fast.background import Backgrounds
    from samg_fast.files import output_folder
    from samg_fast.formats import Job, check_formats
    from samg_fast.media import frames_in

    check_one(source, "INPUT", camera, "--camera")
    writers = check_formats(formats)
    Backgrounds(background)
    learned = _targets(target or [])
    folder = output_folder(out)
    check_json(json)
    if source is not None:
        _check_apart(source, folder)
    with ExitStack() as stack:
        frames = frames_in(cast(Path, source)) if camera is None else stack.enter_context(_Watched(camera, seconds))
        segmenter = stack.enter_context(open_segmenter(bundle, backend, precision, device, threads))
        stop = stack.enter_context(graceful_interrupt())
        if isinstance(frames, _Watched):
            frames.stop = stop
        check_shown(segmenter, learned)
        for name, each in learned.items():
            segmenter.check_target(each, f"target {name}")
        job = Job(folder, tuple(learned) or (segmenter.bundle.name,), frames.fps, background)
        opened = [writer(job) for writer in writers]
        results = _Results(segmenter, frames)
        try:
            try:
                with progress("segmenting", frames.count) as advance:
                    _run(results, segmenter, learned, frames, folder, opened, advance, stop)
                results.complete = not stop()
            finally:
                for writer in opened:
                    writer.close()
        finally:
            figures = results.to_json()
            if results.frames:
                write_text(folder / "results.json", json_text(figures))
        interrupted = stop() and camera is None
    write_json(json, figures)
    summary = figures["summary"]
    if interrupted:
        line = f"samg-fast: interrupted; kept the {summary['frames']} frames that were done in {folder}"
        typer.echo(printable(line), err=True)
        raise typer.Exit(INTERRUPTED)
    if not results.frames:
        raise InputError("there was no frame to segment")
    times = f"{summary['ms']['p50']:.1f} ms per frame (p95 {summary['ms']['p95']:.1f})"
    count = f"{summary['frames']} frame{'' if summary['frames'] == 1 else 's'}"
    say(f"{folder}: {count}, {times}, mean score {summary['mean_score']:.2f}", json_to=json)


def _targets(given: Sequence[str]) -> dict[str, Target]:
    """Read targets, by the names of their objects."""
    from samg_fast.target import Target

    named: dict[str, Target] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).stem, text
        if not name or name in (".", "..") or any(each in name for each in "/\\"):
            raise typer.BadParameter(
                f"{text!r} does not name an object in a way that is fit for a file", param_hint="-t"
            )
        if name in named:
            raise typer.BadParameter(
                f"two objects are called {name}: tell them apart with -t NAME=FILE", param_hint="-t"
            )
        named[name] = Target.load(path)
    return named


class _Watched:
    """A camera's frames, with the time at which they came; as `samg_fast.media.Frames`."""

    count, video = None, None
    fps: float | None = 30.0  # about: they come with times

    def __init__(self, camera: str, seconds: float | None) -> None:
        from samg_fast.media import Camera

        self._camera, self._seconds = Camera(camera), seconds
        self.path = camera
        self.stop: Callable[[], bool] = lambda: False

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._camera.close()

    def timed(self) -> Iterator[NamedFrame]:
        """Yield frames until it has been long enough, or an interruption."""
        from samg_fast.media import NamedFrame

        began, number = monotonic(), 0
        while not self.stop() and (self._seconds is None or monotonic() - began < self._seconds):
            image = self._camera.read(0.2)
            if image is not None:
                yield NamedFrame(f"{number:06d}", image, monotonic() - began, 1 / 30)
                number += 1


def _check_apart(source: Path, folder: Path) -> None:
    """Refuse to read what the run would write over or remove."""
    from samg_fast.formats import FORMATS

    given = source.resolve()
    made = [name for each in FORMATS.values() for name in each.made]
    written = [(folder / name).resolve() for name in (*_WRITTEN, *made)]
    if any(path == given or path in given.parents for path in written):
        raise InputError(f"cannot segment {source} into {folder}: it would be written over; give another folder")


def _forget_earlier_run(folder: Path) -> None:
    """Remove what would be wrong beside new masks."""
    for name in ("results.json", "overlay.mp4"):
        (folder / name).unlink(missing_ok=True)


@dataclass
class _Results:
    """What results.json says."""

    segmenter: Segmenter
    source: Frames | _Watched
    frames: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    def to_json(self) -> dict[str, Any]:
        import numpy as np

        from samg_fast.metrics import percentiles

        summary: dict[str, Any] = {"frames": len(self.frames)}
        if self.frames:
            ms = [frame["ms"] for frame in self.frames]
            summary["ms"] = {name: round(value, 3) for name, value in percentiles(ms, 50, 95, 99).items()}
            summary["frames_per_second"] = round(1e3 * len(ms) / sum(ms), 2)
            every = [each for frame in self.frames for each in frame.get("objects", {"": frame}).values()]
            summary["mean_score"] = round(float(np.mean([each["score"] for each in every])), 4)
            summary["empty_masks"] = sum(each["area"] == 0 for each in every)
        video = self.source.video
        clock = {} if video is None else {"start": round(video.start, 6), "left_out": video.left_out}
        return {
            "input": str(self.source.path),
            **clock,
            "bundle": self.segmenter.bundle.name,
            "backend": self.segmenter.backend,
            "precision": self.segmenter.precision,
            "complete": self.complete,
            "summary": summary,
            "frames": self.frames,
        }


def _run(
    results: _Results,
    segmenter: Segmenter,
    targets: Mapping[str, Target],
    frames: Frames | _Watched,
    folder: Path,
    writers: Sequence[Writer],
    advance: Callable[[], None],
    stop: Callable[[], bool],
) -> None:
    """Segment frame by frame; a frame enters the results when all that belongs to it is written."""
    from samg_fast.files import output_folder
    from samg_fast.formats import PngWriter, Result
    from samg_fast.media import VideoWriter, drawing, write_image
    from samg_fast.objects import Objects

    video: AbstractContextManager[VideoWriter | None] = nullcontext()
    if frames.fps is not None:
        # What a file says may be anything; its frames bring their own times.
        video = VideoWriter(folder / "overlay.mp4", min(max(frames.fps, 1e-5), 1000))
    else:
        output_folder(folder / "overlays")
    several = len(targets) > 1
    masks = next((each for each in writers if isinstance(each, PngWriter)), None)
    with video as writer:
        for name, frame, time, duration in frames.timed():
            if stop():
                break
            started = perf_counter()
            if several:
                seen = segmenter.segment(frame, targets)
            else:
                only, target = next(iter(targets.items()), (segmenter.bundle.name, None))
                seen = Objects(frame=frame, found={only: segmenter.segment(frame, target)})
            ms = (perf_counter() - started) * 1e3
            if not results.frames:
                _forget_earlier_run(folder)
            factor = drawing.watchable(*frame.shape[:2])
            if several:
                drawn = drawing.overlay_ids(frame, seen.ids, factor=factor)
            else:
                drawn = drawing.overlay(frame, seen[only].mask, factor=factor)
            for each in writers:
                each.write(Result(name, seen, time, duration))
            if writer is None:
                write_image(folder / "overlays" / f"{name}.png", drawn)
            else:
                writer.write(drawn, time=time, duration=duration)
            entry: dict[str, Any] = {"name": name}
            if masks is not None and not several:
                entry["mask"] = masks.path(name)
            if time is not None:
                entry["time"] = round(time, 6)
            if several:
                entry["objects"] = {
                    called: ({} if masks is None else {"mask": masks.path(name, called)}) | _figures(each)
                    for called, each in seen.found.items()
                }
            else:
                entry |= _figures(seen[only])
            results.frames.append({**entry, "ms": round(ms, 3)})
            advance()


def _figures(found: Segmentation) -> dict[str, Any]:
    return {
        "score": round(float(found.score), 4),
        "present": found.present,
        "box": None if found.box is None else [int(side) for side in found.box],
        "area": found.area,
    }
