"""What `Segmenter.segment` returns: the mask of a frame, its timings and, on request, a trace of every step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops, shapes
from samg_fast.checks import Box, Floats, Frame, Mask
from samg_fast.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import supervision
    from PIL import Image

__all__ = ["CocoAnnotation", "Decode", "Segmentation", "SegmentationDict", "Trace", "is_present"]

# A mask written to them is the same when it is read: JPEG blurs edges.
_LOSSLESS = (".bmp", ".pgm", ".png", ".tif", ".tiff")


class CocoAnnotation(TypedDict):
    """What COCO says of an object in a picture; its ``id``, ``image_id`` and ``category_id`` are the caller's.

    Attributes
    ----------
    segmentation : Rle
        The mask, compressed; `pycocotools.mask.decode` takes it as it is.
    bbox : list of int
        [x, y, width, height] in pixels; zeros if the mask is empty.
    area : int
        Number of pixels of the mask.
    iscrowd : int
        0.
    score : float
        As in `Segmentation`.
    """

    segmentation: shapes.Rle
    bbox: list[int]
    area: int
    iscrowd: int
    score: float


class SegmentationDict(TypedDict):
    """A `Segmentation` in values that go into JSON.

    Attributes
    ----------
    score, present, box, timings
        As in `Segmentation`; the box is a list.
    area : int
        Number of pixels of the mask.
    segmentation : Rle
        The mask, as in COCO.
    """

    score: float
    present: bool
    box: list[int] | None
    area: int
    segmentation: shapes.Rle
    timings: dict[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Decode:
    """Inputs and outputs of one decode.

    Parameters
    ----------
    points : (n, 2) float32 array
        Points (x, y) in pixels of the frame, in the order given to the decoder, without box corners and empty slots.
    labels : (n,) int64 array
        1 for a positive point, 0 for a negative one.
    box : tuple or None
        (x_min, y_min, x_max, y_max) in pixels of the frame; None in the first decode.
    iou : (3,) float32 array
        Predicted IoU of each mask.
    low_res : (3, 4G, 4G) float32 array
        Logits of each mask at the decoder's resolution.
    mask : (H, W) bool array
        The chosen mask: the weighted mask in the first decode, the one with the best predicted IoU in the others.
    """

    points: Floats
    labels: NDArray[np.int64]
    box: Box | None
    iou: Floats
    low_res: Floats
    mask: Mask


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """Intermediate results of every step of a frame.

    Parameters
    ----------
    similarity : list of (H, W) float32 arrays
        The target's similarity map, then that of each part.
    decodes : tuple of 3 Decode
    """

    similarity: list[Floats]
    decodes: tuple[Decode, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """The target found in a frame.

    Parameters
    ----------
    frame : (H, W, 3) uint8 array
        A copy of the frame.
    mask : (H, W) bool array
        Where the target is. SAM-G always proposes a mask, even if the target is absent: see `present`.
    score : float
        Predicted IoU of the mask.
    box : tuple or None
        (x_min, y_min, x_max, y_max) in pixels, corners inclusive; None if the mask is empty.
    timings : dict of str to float
        Milliseconds of each of `samg_fast.pipeline.stopwatch.STAGES` and of the ``"total"``; in a batch, the batch's
        time divided by its number of frames. ``"features"`` is 0 if the encoder's graph computes the features too. On
        a GPU a frame is one launch, so there is only the ``"total"``.
    trace : Trace or None
        Intermediate results of every step, if requested.
    threshold : float or None
        Score from which the bundle takes a target for present, `Manifest.present`; None where it states none.
    """

    frame: Frame
    mask: Mask
    score: float
    box: Box | None
    timings: dict[str, float]
    trace: Trace | None = None
    threshold: float | None = None

    @property
    def present(self) -> bool:
        """Whether the target is there: the mask is not empty, and the score reaches the bundle's threshold, if any."""
        return is_present(self.score, self.box, self.threshold)

    @property
    def masked(self) -> Frame:
        """The masked observation, (H, W, 3) uint8: the frame where the mask is set, black elsewhere."""
        return ops.apply_mask(self.frame, self.mask)

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def to_coco(self) -> CocoAnnotation:
        """Return the mask as an annotation of COCO, with the mask run-length encoded as pycocotools does.

        With ``image_id`` and ``category_id`` added it is an entry of a file of results, which
        `pycocotools.coco.COCO.loadRes` takes; with ``id`` too, an annotation of a data set.
        """
        x_min, y_min, x_max, y_max = (0, 0, -1, -1) if self.box is None else (int(side) for side in self.box)
        return {
            "segmentation": shapes.encode(self.mask),
            "bbox": [x_min, y_min, x_max - x_min + 1, y_max - y_min + 1],
            "area": self.area,
            "iscrowd": 0,
            "score": float(self.score),
        }

    def to_supervision(self, class_id: int = 0) -> supervision.Detections:
        """Return a `supervision.Detections` of one object, or of none where the target is absent (see `present`).

        Parameters
        ----------
        class_id : int
            The object's number; of several objects, `supervision.Detections.merge` makes one.

        Returns
        -------
        supervision.Detections
            `xyxy` (n, 4) float32, from edge to edge of the pixels: x_max and y_max are one more than in `box`. `mask`
            (n, H, W) bool, `confidence` (n,) float32, `class_id` (n,) int64.

        Raises
        ------
        MissingExtraError
            supervision is not installed.
        """
        try:
            from supervision import Detections
        except ModuleNotFoundError as error:
            raise MissingExtraError("to_supervision()", "supervision") from error
        if self.box is None or not self.present:
            return Detections.empty()
        x_min, y_min, x_max, y_max = self.box
        return Detections(
            xyxy=np.array([[x_min, y_min, x_max + 1, y_max + 1]], np.float32),
            mask=self.mask[None],
            confidence=np.array([self.score], np.float32),
            class_id=np.array([class_id], np.int64),
        )

    def polygons(self) -> list[shapes.Piece]:
        """Return the outlines of the mask's pieces, along the edges of its pixels: filled, they are the mask again.

        Returns
        -------
        list of list of (n, 2) int32 array
            For every piece, the ring around it and then those around its holes, as in GeoJSON's MultiPolygon: corners
            (x, y) from 0 to W and H, clockwise as one sees it, those of holes the other way round. Empty if the mask
            is. Pixels that touch at a corner belong to one piece.
        """
        return shapes.polygons(self.mask)

    def to_dict(self) -> SegmentationDict:
        """Return all but the frame and the trace, in values that go into JSON."""
        return {
            "score": float(self.score),
            "present": bool(self.present),
            "box": None if self.box is None else [int(side) for side in self.box],
            "area": self.area,
            "segmentation": shapes.encode(self.mask),
            "timings": dict(self.timings),
        }

    def plot(self) -> Image.Image:
        """Return the mask drawn over the frame as a Pillow image, RGB: `show` and `save` are its methods.

        A small frame is enlarged, without smoothing. In a notebook, the segmentation itself is shown so.
        """
        from PIL import Image

        from samg_fast.media import drawing

        factor = drawing.watchable(*self.mask.shape)
        return Image.fromarray(drawing.overlay(self.frame, self.mask, factor=factor))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as a picture in black and white, or all of `to_dict` as JSON; whole or not at all.

        Parameters
        ----------
        path : str or os.PathLike
            The file to make or replace; its folder must exist. Its suffix says what it becomes: ``.json``, or a
            picture without loss, which `samg_fast.media.read_mask` reads back.

        Raises
        ------
        InputError
            The suffix is another.
        FileError
            The file cannot be written.
        """
        from samg_fast.files import write_text
        from samg_fast.media import write_image

        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            import json

            write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")
        elif suffix in _LOSSLESS:
            write_image(path, self.mask)
        else:
            raise InputError(f"path must end with .json or one of {', '.join(_LOSSLESS)}, not {str(path)!r}")

    def __repr__(self) -> str:
        height, width = self.mask.shape
        box = None if self.box is None else tuple(int(side) for side in self.box)
        took = f", {self.timings['total']:.1f} ms" if "total" in self.timings else ""
        return (
            f"Segmentation({width}x{height} pixels, {'present' if self.present else 'absent'}, "
            f"score {self.score:.2f}, box {box}, area {self.area}{took})"
        )

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows: `plot`, as PNG."""
        png = BytesIO()
        self.plot().save(png, format="PNG")
        return png.getvalue()


def is_present(score: float, box: Box | None, threshold: float | None) -> bool:
    """Return whether a mask counts as a target that is there: it is not empty, and scores the threshold, if any."""
    return box is not None and (threshold is None or score >= threshold)
