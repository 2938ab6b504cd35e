"""The object cut out: pictures and videos that are transparent everywhere else."""

from __future__ import annotations

import numpy as np
from PIL import Image

from samg_fast.errors import InputError
from samg_fast.files import output_folder, replacing
from samg_fast.formats.writer import Job, Result, Writer
from samg_fast.media import VideoWriter

__all__ = ["AlphaWriter"]


class AlphaWriter(Writer):
    """``alpha.webm`` of a video (VP9), which browsers play; else ``alpha/FRAME.png``. One object alone."""

    made = ("alpha.webm", "alpha")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if len(job.objects) > 1:
            raise InputError(
                f"format alpha shows one object, not {len(job.objects)}: cut them out one by one, or take another "
                "format"
            )
        if job.fps is None:
            self._folder, self._video = output_folder(job.folder / "alpha"), None
        else:
            self._video = VideoWriter(job.folder / "alpha.webm", job.fps, alpha=True)

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        (each,) = result.seen.found.values()
        cut_out = np.dstack([each.frame, np.where(each.mask, np.uint8(255), np.uint8(0))])
        if self._video is not None:
            self._video.write(cut_out, time=result.time, duration=result.duration)
            return
        with replacing(self._folder / f"{result.name}.png") as temporary:
            Image.fromarray(cut_out).save(temporary)

    def close(self) -> None:
        """Finish the video."""
        if self._video is not None:
            self._video.close()
