"""The objects before another background, as an agent sees them."""

from __future__ import annotations

from samg_fast.background import Backgrounds
from samg_fast.files import output_folder
from samg_fast.formats.writer import Job, Result, Writer
from samg_fast.media import VideoWriter, write_image

__all__ = ["CompositeWriter"]


class CompositeWriter(Writer):
    """``composite.mp4`` of a video, else ``composites/FRAME.png``."""

    made = ("composite.mp4", "composites")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._backgrounds = Backgrounds(job.background)
        self._backgrounds.seed(0)
        self._video = None if job.fps is None else VideoWriter(job.folder / "composite.mp4", job.fps)
        self._folder = job.folder / "composites" if job.fps is not None else output_folder(job.folder / "composites")

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        shown = self._backgrounds.compose(result.seen.frame[None], result.seen.mask[None], [0])[0]
        if self._video is not None:
            self._video.write(shown, time=result.time, duration=result.duration)
        else:
            write_image(self._folder / f"{result.name}.png", shown)

    def close(self) -> None:
        """Finish the video."""
        if self._video is not None:
            self._video.close()
