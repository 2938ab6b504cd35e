"""COCO: one JSON file, with masks as compressed run lengths or as polygons."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from samg_fast import shapes
from samg_fast.files import check_writable, write_text
from samg_fast.formats.writer import Job, Result, Writer

__all__ = ["CocoPolygonsWriter", "CocoWriter"]


class CocoWriter(Writer):
    """``coco.json``, with compressed run lengths; objects that are absent in a frame have no annotation there."""

    made = ("coco.json",)
    _polygons: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._path = job.folder / self.made[0]
        check_writable(self._path)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def write(self, result: Result) -> None:
        """See `Writer.write`."""
        height, width = next(iter(result.seen.found.values())).mask.shape
        image = {"id": len(self._images) + 1, "file_name": f"{result.name}.png", "width": width, "height": height}
        self._images.append(image)
        for number, segmentation in enumerate(result.seen.found.values(), 1):
            if segmentation.present:
                placed = {"id": len(self._annotations) + 1, "image_id": image["id"], "category_id": number}
                annotation: dict[str, Any] = {**placed, **segmentation.to_coco()}
                if self._polygons:  # COCO's have no holes: these are joined to their rim by a bridge without width
                    rings = [shapes.joined(piece).ravel().tolist() for piece in segmentation.polygons()]
                    annotation["segmentation"] = rings
                self._annotations.append(annotation)

    def close(self) -> None:
        """Write the file, if there was a frame."""
        if self._images:
            categories = [{"id": number, "name": name} for number, name in enumerate(self.job.objects, 1)]
            whole = {"images": self._images, "annotations": self._annotations, "categories": categories}
            write_text(self._path, json.dumps(whole) + "\n")


class CocoPolygonsWriter(CocoWriter):
    """``coco-polygons.json``: the same with polygons, for importers that read no run lengths, as Label Studio's."""

    made = ("coco-polygons.json",)
    _polygons = True
