"""What every step is given: the shapes of a frame's arrays, of any model, and seeded arrays of these shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samg_fast.bundle import Bundle, NetworkSpec
from samg_fast.bundle.zoo import official_models, resolve
from samg_fast.checks import Floats, Frame, Mask
from samg_fast.export.bundle import DINO_SIDE, dino_spec, sam_spec
from samg_fast.export.dinov2 import FEATURES
from samg_fast.export.efficientvit import ENCODERS
from samg_fast.export.sam import PROMPT_SIDE
from samg_fast.ops.reference import unit

__all__ = ["Given", "Sizes", "sizes_of"]


@dataclass(frozen=True)
class Sizes:
    """Shapes of all arrays of a frame.

    Parameters
    ----------
    model : str
    sam, dino : NetworkSpec
        The maps, and the images they are made of.
    shared : bool
        Whether one graph gives both maps, of one image.
    prompt_side : int
        P, the side of the prompt frame.
    size : int
        S, the side of the frame.
    features : int
        K, the features of a target and its parts.
    """

    model: str
    sam: NetworkSpec
    dino: NetworkSpec
    shared: bool
    prompt_side: int
    size: int
    features: int

    @property
    def images(self) -> tuple[NetworkSpec, ...]:
        """The networks that get an image of their own."""
        return (self.sam,) if self.shared else (self.sam, self.dino)


def sizes_of(model: str, size: int, features: int) -> Sizes:
    """Look up the shapes of an official model, such as l0-vits14, or of a bundle.

    Raises
    ------
    SamgError
        There is no such model or bundle.
    """
    models = official_models(model)
    if models is not None:
        sam, dino = models
        specs = sam_spec(ENCODERS[sam].side), dino_spec(DINO_SIDE, FEATURES[dino].width)
        return Sizes(model, *specs, False, PROMPT_SIDE, size, features)
    manifest = Bundle.open(resolve(model)).prompted
    return Sizes(
        model, manifest.encoder, manifest.features, manifest.shared_graph, manifest.prompt_side, size, features
    )


@dataclass(frozen=True, eq=False)
class Given:
    """Seeded inputs of every step; shapes as `samg_fast.ops` takes them."""

    frame: Frame
    sam_features: Floats
    dino_features: Floats
    sam_map: Floats
    dino_map: Floats
    similarity: Floats
    low_res: Floats
    weights: Floats
    iou: Floats
    points: NDArray[np.int32]
    order: NDArray[np.int32]
    labels: NDArray[np.int32]
    box: NDArray[np.int32]
    mask: Mask

    @classmethod
    def of(cls, sizes: Sizes, seed: int = 0) -> Given:
        """Draw them: maps of noise, masks of a noisy disc."""
        random = np.random.default_rng(seed)
        size, count, side = sizes.size, sizes.features, 4 * sizes.sam.grid

        def noise(*shape: int) -> Floats:
            return random.standard_normal(shape, np.float32)

        def feature_map(spec: NetworkSpec) -> Floats:
            return noise(spec.channels, spec.grid, spec.grid)

        def disc(side: int) -> Floats:
            across = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
            return np.asarray(0.3 - np.hypot(across, across[:, None]), np.float32)

        return cls(
            frame=random.integers(0, 256, (size, size, 3), np.uint8),
            sam_features=unit(noise(count, sizes.sam.channels), axis=1),
            dino_features=unit(noise(count, sizes.dino.channels), axis=1),
            sam_map=feature_map(sizes.sam),
            dino_map=feature_map(sizes.dino),
            similarity=noise(count, size, size),
            low_res=20 * disc(side) + noise(1, 3, side, side),
            weights=np.array([[0.5, 0.3, 0.2]], np.float32),
            iou=random.random((1, 3), np.float32),
            points=random.integers(0, size, (1, count + 2, 2), np.int32),
            order=np.arange(count + 2, dtype=np.int32)[None],
            labels=np.array([[1, 0, *[1] * (count - 1), 0]], np.int32),
            box=np.array([[size // 5, size // 5, size - size // 5, size - size // 5]], np.int32),
            mask=disc(size) > 0,
        )
