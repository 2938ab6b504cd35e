"""YOLO: a text file for each frame, a line with a polygon for each object, as ultralytics trains on."""

from __future__ import annotations

import json

from samg_fast import shapes
from samg_fast.files import output_folder, write_text
from samg_fast.formats.writer import Job, Result, Writer

__all__ = ["YoloWriter"]


class YoloWriter(Writer):
    """``yolo/labels/FRAME.txt`` with a class and x and y from 0 to 1, and ``yolo/data.yaml`` with the names.

    An object of several pieces, or with holes, is one polygon: its rings are joined by bridges without width.
    """

    made = ("yolo",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._folder = output_folder(job.folder / "yolo" / "labels")
        # JSON is YAML, and quotes what YAML would take for something else
        names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(job.objects))
        write_text(job.folder / "yolo" / "data.yaml", f"names:\n{names}")

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        lines = []
        for number, segmentation in enumerate(result.seen.found.values()):
            if segmentation.present:
                height, width = segmentation.mask.shape
                ring = shapes.joined([ring for piece in segmentation.polygons() for ring in piece])
                corners = (ring / (width, height)).ravel()
                lines.append(" ".join([f"{number}", *(f"{value:.6g}" for value in corners)]))
        write_text(self._folder / f"{result.name}.txt", "".join(f"{line}\n" for line in lines))
