"""What `benchmarks.kernels` lets take turns: our operations and the eager reference's steps, on the same inputs.

No network runs: what it would have given stands in its place. The eager steps are the code of `benchmarks.eager`
itself. It is written for the official sizes; for another model `official_code` replaces its constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.eager import frame, predictor
from benchmarks.eager.frame import EagerSamg, best, box_of, max_point, min_point
from benchmarks.eager.predictor import DinoFeatures, EagerPrompt, Prediction, SamPredictor
from samg_fast import ops
from samg_fast.checks import Frame
from samg_fast.export.dinov2 import PATCH
from samg_fast.pipeline.stopwatch import Stopwatch

if TYPE_CHECKING:
    from benchmarks.kernels.inputs import Given, Sizes
    from benchmarks.kernels.places import Place

__all__ = ["Eager", "Ours", "Results", "official_code"]

Results = dict[str, Any]
"""Name -> array, of a device or of PyTorch. The eager steps leave out what the official code does not make."""


@contextmanager
def official_code(sizes: Sizes) -> Iterator[None]:
    """Give the eager code a model's sizes for its constants, and points on a GPU a way to the host."""
    grid, tokens_side = sizes.sam.grid, PATCH * sizes.dino.grid
    with (
        patch.multiple(frame, GRID=grid, _place=partial(_place, frame._place)),
        patch.multiple(predictor, GRID=grid, PROMPT_SIDE=sizes.prompt_side, _DINO_SIDE=tokens_side),
    ):
        yield


def _place(official: Callable[[Tensor, int], NDArray[np.int64]], index: Tensor, width: int) -> NDArray[np.int64]:
    return official(index.cpu(), width)


class Ours:
    """The operations on their inputs on a device, called as the package calls them."""

    def __init__(self, sizes: Sizes, given: Given, place: Place) -> None:
        put, device, size = place.put, place.device, sizes.size
        self._given, self._box = put(given.similarity), put(given.box)
        self._weights, self._iou = put(given.weights), put(given.iou)
        self._maps = put(np.empty((sizes.features, size, size), np.float32))
        images = [put(np.empty((1, 3, spec.side, spec.side), np.float32)) for spec in sizes.images]
        self._preprocess = partial(ops.preprocess, put(given.frame[None]), sizes.images, out=images, device=device)
        self._similarity = partial(
            ops.similarity_map,
            *(put(each) for each in (given.sam_features, given.dino_features, given.sam_map, given.dino_map)),
            prompt_side=sizes.prompt_side,
            height=size,
            width=size,
            out=self._maps,
            device=device,
        )
        self._find = partial(ops.topk_points, k=1, device=device)
        self._whole = (0, 0, size - 1, size - 1)  # the official box leaves out the last row and column
        self._resize = partial(
            ops.resize_logits,
            put(given.low_res),
            prompt_side=sizes.prompt_side,
            height=size,
            width=size,
            device=device,
        )
        self._assemble = partial(
            ops.prompt_assembly,
            *(put(each) for each in (given.points, given.order, given.labels, given.box)),
            scale=(sizes.prompt_side / size,) * 2,
            slots=given.points.shape[1] + 2,
            device=device,
        )
        self._mask = partial(ops.apply_mask, put(given.frame), put(given.mask), device=device)

    def preprocess(self) -> Results:
        """Make images for the networks."""
        return {f"image {index}": image for index, image in enumerate(self._preprocess())}

    def similarity(self) -> Results:
        """Compare every cell with each feature."""
        return {"similarity": self._similarity()}

    def points(self) -> Results:
        """Find the largest point of each map, and the smallest of the first."""
        return self._points(self._given)

    def similarity_points(self) -> Results:
        """Compare, then find the points."""
        self._similarity()
        return self._points(self._maps)

    def _points(self, maps: Any) -> Results:
        return {
            "max": self._find(maps, largest=True),
            "min": self._find(maps[:1], largest=False, box=self._whole),
        }

    def point_in_box(self) -> Results:
        """Find the smallest point of the first map inside a box."""
        return {"min": self._find(self._given[:1], largest=False, box=self._box)}

    def prompt(self) -> Results:
        """Put points and a box into the decoder's slots."""
        return dict(zip(("coords", "labels"), self._assemble(), strict=True))

    def weighted(self) -> Results:
        """Bring three masks, weighted, to the frame."""
        return self._resize(weights=self._weights)._asdict()

    def best(self) -> Results:
        """Bring the best of three masks to the frame."""
        return self._resize(iou=self._iou)._asdict()

    def apply_mask(self) -> Results:
        """Make the frame black outside the mask."""
        return {"masked": self._mask()}


class _Network:
    """A stand-in for a network: returns what it was made with."""

    prompt_encoder = mask_decoder = None

    def __init__(self, gives: Tensor, side: int) -> None:
        self.gives, self.shape = gives, SimpleNamespace(side=side)

    def image_encoder(self, _image: Tensor) -> Tensor:
        return self.gives

    __call__ = image_encoder

    def eval(self) -> _Network:
        return self

    def to(self, _device: torch.device) -> _Network:
        return self


class _Encoded(SamPredictor):
    """A predictor that gets its images ready-made."""

    def transform(self, image: Frame) -> Tensor:
        """Return an empty tensor: the network needs no input."""
        del image
        return torch.empty(0)


class _Described(DinoFeatures):
    """A feature map that gets its images ready-made."""

    def transform(self, image: Frame) -> Tensor:
        """Return an empty tensor: the network needs no input."""
        del image
        return torch.empty(0)


class Eager:
    """The steps of `EagerSamg.segment`, with what the networks give in the networks' place."""

    def __init__(self, sizes: Sizes, given: Given, device: str) -> None:
        def put(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        sam: Any = _Network(put(given.sam_map[None]), sizes.sam.side)
        cells = given.dino_map.reshape(1, len(given.dino_map), -1)
        dino: Any = _Network(put(np.ascontiguousarray(cells.transpose(0, 2, 1))), sizes.dino.side)
        self._given, self._device = given, device
        self._transforms = [SamPredictor(sam).transform, DinoFeatures(dino).transform][: len(sizes.images)]
        self._samg = EagerSamg(sam, dino)
        self._samg.features, self._samg.predictor = _Described(dino), _Encoded(sam)
        self._samg.predictor.set_image(given.frame)
        self._features = [
            tuple(put(each[index : index + 1]) for each in (given.sam_features, given.dino_features))
            for index in range(sizes.features)
        ]
        self._maps = list(put(given.similarity))
        self._low_res, self._iou = put(given.low_res), put(given.iou)
        self._weights, self._host_weights = put(given.weights.T), given.weights[0, :, None, None]
        points, labels = given.points[0].astype(np.int64), given.labels[0].astype(np.int64)
        self._prompt = EagerPrompt(points, labels, given.box[0].astype(np.int64))

    def preprocess(self) -> Results:
        """See `Ours`."""
        images = [transform(self._given.frame).to(self._device) for transform in self._transforms]
        return {f"image {index}": image for index, image in enumerate(images)}

    def similarity(self) -> Results:
        """See `Ours`."""
        return {"similarity": self._similarity()}

    def points(self) -> Results:
        """See `Ours`."""
        return self._points(self._maps)

    def similarity_points(self) -> Results:
        """See `Ours`."""
        return self._points(self._similarity())

    def _similarity(self) -> list[Tensor]:
        cells = self._samg._encode(self._given.frame, Stopwatch())  # lifts and normalises: there is nothing to encode
        return [self._samg._similarity(sam, dino, cells) for sam, dino in self._features]

    def _points(self, maps: Sequence[Tensor]) -> Results:
        return {"max": [max_point(each) for each in maps], "min": min_point(maps[0])}

    def point_in_box(self) -> Results:
        """See `Ours`."""
        return {"min": min_point(self._maps[0], self._prompt.box)}

    def prompt(self) -> Results:
        """See `Ours`."""
        slots = (each.to(self._device) for each in self._samg.predictor._tokens(self._prompt))
        return dict(zip(("coords", "labels"), slots, strict=True))

    def weighted(self) -> Results:
        """See `Ours`."""
        seen = self._predicted()
        logits = (seen.high_res * self._weights.unsqueeze(-1)).sum(0)
        mask = (logits > 0).cpu().numpy()
        settled = (seen.low_res * self._host_weights).sum(0)[None]
        return {"settled": settled, "logits": logits, "mask": mask, "box": box_of(mask)}

    def best(self) -> Results:
        """See `Ours`."""
        seen = self._predicted()
        chosen = best(seen)
        mask, settled = seen.masks[chosen], seen.low_res[chosen][None]
        return {"settled": settled, "logits": seen.high_res[chosen], "mask": mask, "box": box_of(mask)}

    def _predicted(self) -> Prediction:
        """Return the decoder's results as `SamPredictor.predict` does."""
        high_res = self._samg.predictor.postprocess(self._low_res)
        masks = high_res > 0
        return Prediction(
            masks[0].cpu().numpy(), self._iou[0].cpu().numpy(), self._low_res[0].cpu().numpy(), high_res[0]
        )

    def apply_mask(self) -> Results:
        """See `Ours`."""
        return {"masked": (self._given.frame.transpose(2, 0, 1) * self._given.mask).transpose(1, 2, 0)}
