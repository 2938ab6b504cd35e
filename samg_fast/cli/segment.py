"""``samg-fast segment``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samg_fast.cli.common import (
    INTERRUPTED,
    BackendOption,
    BundleOption,
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
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
    from samg_fast.media import Frames, VideoWriter
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

_WRITTEN = ("masks", "overlays", "overlay.mp4", "results.json")


def segment(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A picture, a folder of pictures, or a video or animation.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for what comes out.")],
    target: Annotated[
        Path | None,
        typer.Option(
            "--target", "-t", metavar="FILE", help="What `samg-fast identify` wrote; a fitted bundle needs none."
        ),
    ] = None,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Cut a target out of a picture, a folder of pictures or a video.

    DIR gets a mask per frame in masks/, the masks drawn over the frames as overlay.mp4 (a video) or in overlays/
    (pictures), and results.json with score, whether the target counts as present, box, area and the milliseconds it
    took of every frame; of a video, also the frame's own time in seconds, which the frames of overlay.mp4 keep. If the
    run is interrupted or a frame cannot be read, what was done until then stays, and results.json says that it is not
    complete. What an earlier run wrote there stays until the first frame is done.
    """
    from samg_fast.files import output_folder
    from samg_fast.media import frames_in
    from samg_fast.target import Target

    folder = output_folder(out)
    check_json(json)
    _check_apart(source, folder)
    learned = None if target is None else Target.load(target)
    frames = frames_in(source)
    output_folder(folder / "masks")
    with open_segmenter(bundle, backend, precision, device, threads) as segmenter, graceful_interrupt() as stop:
        if learned is None and segmenter.needs_target:
            raise typer.BadParameter(f"bundle {segmenter.bundle.name} must be shown what to cut out", param_hint="-t")
        results = _Results(segmenter, frames)
        try:
            with progress("segmenting", frames.count) as advance:
                _run(results, segmenter, learned, frames, folder, advance, stop)
            results.complete = not stop()
        finally:
            figures = results.to_json()
            if results.frames:
                write_text(folder / "results.json", json_text(figures))
        interrupted = stop()
    write_json(json, figures)
    summary = figures["summary"]
    if interrupted:
        line = f"samg-fast: interrupted; kept the {summary['frames']} frames that were done in {folder}"
        typer.echo(printable(line), err=True)
        raise typer.Exit(INTERRUPTED)
    times = f"{summary['ms']['p50']:.1f} ms per frame (p95 {summary['ms']['p95']:.1f})"
    count = f"{summary['frames']} frame{'' if summary['frames'] == 1 else 's'}"
    say(f"{folder}: {count}, {times}, mean score {summary['mean_score']:.2f}", json_to=json)


def _check_apart(source: Path, folder: Path) -> None:
    """Refuse to read what the run would write over or remove."""
    given = source.resolve()
    written = [(folder / name).resolve() for name in _WRITTEN]
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
    source: Frames
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
            summary["mean_score"] = round(float(np.mean([frame["score"] for frame in self.frames])), 4)
            summary["empty_masks"] = sum(frame["area"] == 0 for frame in self.frames)
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
    target: Target | None,
    frames: Frames,
    folder: Path,
    advance: Callable[[], None],
    stop: Callable[[], bool],
) -> None:
    """Segment frame by frame; a frame enters the results when all that belongs to it is written."""
    from samg_fast.files import output_folder
    from samg_fast.media import VideoWriter, drawing, write_image

    video: AbstractContextManager[VideoWriter | None] = nullcontext()
    if frames.fps is not None:
        # What a file says may be anything; its frames bring their own times.
        video = VideoWriter(folder / "overlay.mp4", min(max(frames.fps, 1e-5), 1000))
    else:
        output_folder(folder / "overlays")
    with video as writer:
        for name, frame, time, duration in frames.timed():
            if stop():
                break
            started = perf_counter()
            out = segmenter.segment(frame, target)
            ms = (perf_counter() - started) * 1e3
            if not results.frames:
                _forget_earlier_run(folder)
            factor = drawing.watchable(*frame.shape[:2])
            drawn = drawing.overlay(frame, out.mask, factor=factor)
            write_image(folder / "masks" / f"{name}.png", out.mask)
            if writer is None:
                write_image(folder / "overlays" / f"{name}.png", drawn)
            else:
                writer.write(drawn, time=time, duration=duration)
            box = None if out.box is None else [int(side) for side in out.box]
            entry: dict[str, Any] = {"name": name, "mask": f"masks/{name}.png"}
            if time is not None:
                entry["time"] = round(time, 6)
            entry |= {
                "score": round(float(out.score), 4),
                "present": out.present,
                "box": box,
                "area": int(out.mask.sum()),
            }
            results.frames.append({**entry, "ms": round(ms, 3)})
            advance()
