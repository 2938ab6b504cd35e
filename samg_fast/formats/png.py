"""A mask for each frame and object, white on black."""

from __future__ import annotations

from samg_fast.files import output_folder
from samg_fast.formats.writer import Job, Result, Writer
from samg_fast.media import write_image

__all__ = ["PngWriter"]


class PngWriter(Writer):
    """``masks/FRAME.png``; of several objects ``masks/OBJECT/FRAME.png``."""

    made = ("masks",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._several = len(job.objects) > 1
        for name in job.objects:
            output_folder((job.folder / self.path("frame", name)).parent)

    def path(self, frame: str, object_name: str = "") -> str:
        """Return where a frame's mask is, seen from the job's folder."""
        return f"masks/{object_name}/{frame}.png" if self._several else f"masks/{frame}.png"

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        for each, segmentation in result.seen.found.items():
            write_image(self.job.folder / self.path(result.name, each), segmentation.mask)
