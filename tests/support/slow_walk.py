"""A SAM-G frame written down step by step, slowly, with nothing of the package but its manifest.

Resizing, letterboxing, prompts and refinement are written anew from the papers; networks run in ONNX Runtime, one frame
at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from samg_fast.bundle import Bundle, NetworkSpec
from samg_fast.target import Target

Array = NDArray[Any]


def bilinear(plane: Array, height: int, width: int) -> Array:
    """Resize one (h, w) plane pixel by pixel: align_corners False, edges repeated."""
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * plane.shape[0] / height - 0.5, 0), plane.shape[0] - 1)
            u = min(max((x + 0.5) * plane.shape[1] / width - 0.5, 0), plane.shape[1] - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            upper = plane[y0, x0] * (1 - (u - x0)) + plane[y0, x1] * (u - x0)
            lower = plane[y1, x0] * (1 - (u - x0)) + plane[y1, x1] * (u - x0)
            out[y, x] = upper * (1 - (v - y0)) + lower * (v - y0)
    return out


def letterbox(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns that a frame covers in a square."""
    scale = side / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def network_input(frame: Array, spec: NetworkSpec) -> Array:
    """Letterbox and normalise one frame, (1, 3, side, side)."""
    rows, columns = letterbox(frame.shape[0], frame.shape[1], spec.side)
    if spec.resize == "uint8":
        # Columns first, as every Pillow did before 13, which takes the rows first where they shrink more
        wide = Image.fromarray(frame).resize((columns, len(frame)), Image.Resampling.BILINEAR)
        resized = np.asarray(wide.resize((columns, rows), Image.Resampling.BILINEAR)) / 255
    else:
        resized = np.stack([bilinear(frame[..., c] / 255, rows, columns) for c in range(3)], axis=-1)
    out = np.zeros((1, 3, spec.side, spec.side), np.float32)
    for c in range(3):
        out[0, c, :rows, :columns] = (resized[..., c] - spec.mean[c]) / spec.std[c]
    return out


def to_frame(plane: Array, sides: list[int], height: int, width: int) -> Array:
    """Resize from side to side, crop what the frame covers, resize to the frame."""
    for side in sides:
        plane = bilinear(plane, side, side)
    rows, columns = letterbox(height, width, sides[-1])
    return bilinear(plane[:rows, :columns], height, width)


def extreme(plane: Array, x0: int, y0: int, x1: int, y1: int, sign: int) -> tuple[int, int]:
    """First pixel in row-major order with the largest (sign 1) or smallest (sign -1) value in a half-open box."""
    best, at = -np.inf, (0, 0)
    for y in range(y0, y1):
        for x in range(x0, x1):
            if sign * plane[y, x] > best:
                best, at = sign * plane[y, x], (x, y)
    return at


def bounding_box(mask: Array) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return 1, 1, mask.shape[1] - 1, mask.shape[0] - 1
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


@dataclass
class Walked:
    """What the walk saw."""

    similarity: list[Array] = field(default_factory=list)
    points: list[list[tuple[int, int]]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    boxes: list[tuple[int, int, int, int] | None] = field(default_factory=list)
    fed: list[dict[str, Array]] = field(default_factory=list)  # the decoder's inputs
    iou: list[Array] = field(default_factory=list)
    low_res: list[Array] = field(default_factory=list)
    masks: list[Array] = field(default_factory=list)
    score: float = 0.0


class SlowWalk:
    """Walks frames through a bundle."""

    def __init__(self, folder: Path) -> None:
        self.bundle = Bundle.open(folder)
        self.manifest = self.bundle.manifest
        self.sessions = {
            role: onnxruntime.InferenceSession(self.bundle.onnx_path(role), providers=["CPUExecutionProvider"])
            for role in ("encoder", "features", "decoder")
        }

    def maps(self, frame: Array) -> tuple[Array, Array]:
        """Both raw maps on the encoder's grid, and the embedding as it is."""
        m = self.manifest
        sam = self.sessions["encoder"].run([m.encoder.output], {"image": network_input(frame, m.encoder)})[0][0]
        dino = self.sessions["features"].run([m.features.output], {"image": network_input(frame, m.features)})[0][0]
        return sam, np.stack([bilinear(plane, m.encoder.grid, m.encoder.grid) for plane in dino])

    def feed(
        self, sam: Array, target: Target, points: Any, labels: Any, box: Any, before: Array | None, size: Any
    ) -> dict[str, Array]:
        """Return what the decoder gets, by the rules of SAM's predictor."""
        m = self.manifest
        rows, columns = letterbox(size[0], size[1], m.prompt_side)
        at = [(x * columns / size[1], y * rows / size[0]) for x, y in points]
        marks = list(labels)
        if box is None:
            at.append((0.0, 0.0))
            marks.append(-1)
        else:
            at += [(box[i] * columns / size[1], box[i + 1] * rows / size[0]) for i in (0, 2)]
            marks += [2, 3]
        empty = m.slots - len(marks)
        side = 4 * m.encoder.grid
        return {
            "embedding": sam[None],
            "point_coords": np.array([at + [(0.0, 0.0)] * empty], np.float32),
            "point_labels": np.array([marks + [-2] * empty], np.float32),
            "mask_input": np.zeros((1, 1, side, side), np.float32) if before is None else before[None, None],
            "has_mask_input": np.array([before is not None], np.float32),
            **({"target": target.sam[None]} if m.decoder.target else {}),
        }

    def walk(self, frame: Array, target: Target) -> Walked:
        """Segment one frame."""
        m, size = self.manifest, frame.shape[:2]
        height, width = size
        sam, dino = self.maps(frame)
        seen = Walked()
        pairs = [(target.sam, target.dino), *zip(target.parts_sam, target.parts_dino, strict=True)]
        for feature_sam, feature_dino in pairs:
            cosine = np.zeros(sam.shape[1:])
            for y in range(sam.shape[1]):
                for x in range(sam.shape[2]):
                    a, b = sam[:, y, x], dino[:, y, x]
                    cosine[y, x] = (feature_sam @ a / np.linalg.norm(a) + feature_dino @ b / np.linalg.norm(b)) / 2
            seen.similarity.append(to_frame(cosine, [4 * m.encoder.grid, m.prompt_side], height, width))
        whole = seen.similarity[0]
        negative = extreme(whole, 0, 0, width - 1, height - 1, -1)
        points = [extreme(whole, 0, 0, width, height, 1), negative]
        points += [extreme(part, 0, 0, width, height, 1) for part in seen.similarity[1:]]
        labels = [1, 0] + [1] * (len(points) - 2)
        box: tuple[int, int, int, int] | None = None
        before: Array | None = None
        for turn in range(3):
            if turn > 0:
                assert box is not None
                points = [*points, extreme(whole, *box, -1) if turn == 1 else negative]
                labels = [*labels, 0]
            seen.fed.append(self.feed(sam, target, points, labels, box, before, size))
            low_res, iou = (
                each[0, 1:] for each in self.sessions["decoder"].run(["low_res_masks", "iou"], seen.fed[-1])
            )
            best = int(iou.argmax())
            before = (target.mask_weights[:, None, None] * low_res).sum(0) if turn == 0 else low_res[best]
            mask = to_frame(before, [m.prompt_side], height, width) > 0
            seen.points.append(points)
            seen.labels.append(labels)
            seen.boxes.append(box)
            seen.iou.append(iou)
            seen.low_res.append(low_res)
            seen.masks.append(mask)
            box = bounding_box(mask)
            seen.score = float(iou[best])
        return seen
