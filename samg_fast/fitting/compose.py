"""Training images for fitting: labelled frames on other backgrounds, in other light and colours, at other places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from samg_fast.checks import Frame, Mask
from samg_fast.distill.backgrounds import Backgrounds, jitter
from samg_fast.envs.backgrounds import VideoClip

from .labels import Labels

__all__ = ["EMPTY", "Composer", "Odds"]

EMPTY = (124, 116, 104)
"""What is 0 to the network, nearly: the mean colour."""


@dataclass(frozen=True)
class Odds:
    """How often an image is changed, and how.

    Attributes
    ----------
    background : float
        Its background is another image; otherwise the frame's own, in other colours or as it is.
    absent : float
        It shows no target.
    moved : float
        The target is at another place and size, where the background is another.
    recoloured : float
        The target has other colours.
    lit : float
        The whole image has other colours, or a light from one side.
    """

    background: float = 0.7
    absent: float = 0.06
    moved: float = 0.35
    recoloured: float = 0.5
    lit: float = 0.4


class Composer:
    """Draws images with masks.

    Parameters
    ----------
    labels : Labels
    clips : sequence of VideoClip
        Backgrounds, besides procedural ones and the frames' own.
    side : int
        Side of the images; what the labels lack of it, to the right and below, stays empty as in the runtime.
    rng : numpy.random.Generator
    odds : Odds
    """

    def __init__(
        self,
        labels: Labels,
        clips: Sequence[VideoClip],
        side: int,
        rng: np.random.Generator,
        odds: Odds | None = None,
    ) -> None:
        shown = labels.present
        self._shown, self._empty = labels[np.flatnonzero(shown)], labels[np.flatnonzero(~shown)]
        self._side, self._rng, self._odds = side, rng, odds or Odds()
        stills, moving = (
            [each for each in clips if len(each.frames) == 1],
            [each for each in clips if len(each.frames) > 1],
        )
        self._backgrounds = Backgrounds(moving, stills, rng, bank=60)

    def batch(self, count: int) -> tuple[Frame, Mask]:
        """Return images (count, S, S, 3) uint8 and masks (count, S, S) bool."""
        height, width = self._shown.masks.shape[1:]
        images = np.full((count, self._side, self._side, 3), EMPTY, np.uint8)
        masks = np.zeros((count, self._side, self._side), bool)
        for index in range(count):
            images[index, :height, :width], masks[index, :height, :width] = self.draw()
        return images, masks

    def draw(self) -> tuple[Frame, Mask]:
        """Return one image and its mask, of the labels' size."""
        rng, odds = self._rng, self._odds
        if rng.random() < odds.absent:
            image, mask = self._absent()
        else:
            image, mask = self._present()
        if rng.random() < odds.lit:
            image = jitter(image, 0.4, rng) if rng.random() < 0.6 else _lit_from_a_side(image, rng)
        if rng.random() < 0.2:
            noise = rng.normal(0.0, rng.uniform(1.0, 8.0), image.shape)
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        return image, mask

    def _present(self) -> tuple[Frame, Mask]:
        rng, odds = self._rng, self._odds
        index = int(rng.integers(len(self._shown)))
        image, mask = self._shown.frames[index], self._shown.masks[index]
        if rng.random() < odds.recoloured:
            image = np.where(mask[..., None], jitter(image, rng.uniform(0.2, 1.3), rng), image)
        if rng.random() < odds.background:
            if rng.random() < odds.moved:
                image, mask = _moved(image, mask, rng)
            return np.where(mask[..., None], image, self._behind()), mask
        if rng.random() < 0.6:
            image = np.where(mask[..., None], image, jitter(image, rng.uniform(0.3, 1.3), rng))
        return image, mask

    def _absent(self) -> tuple[Frame, Mask]:
        rng = self._rng
        nothing = np.zeros(self._shown.masks.shape[1:], bool)
        if len(self._empty) and rng.random() < 0.5:
            return self._empty.frames[int(rng.integers(len(self._empty)))], nothing
        return self._behind(), nothing

    def _behind(self) -> Frame:
        height, width = self._shown.masks.shape[1:]
        behind: Frame = self._backgrounds.draw(self._side)[0]
        return behind[:height, :width]


def _moved(image: Frame, mask: Mask, rng: np.random.Generator) -> tuple[Frame, Mask]:
    """Scale and shift a target a little, mostly inside the image."""
    height, width = mask.shape
    factor = float(np.exp(rng.normal(0.0, 0.12)))
    right, down = (float(rng.normal(0.0, 0.12 * length)) for length in (width, height))
    x, y = width / 2, height / 2
    # What pillow asks for: where each pixel of the new image comes from
    matrix = (1 / factor, 0, x - (x + right) / factor, 0, 1 / factor, y - (y + down) / factor)
    size = (width, height)

    def moved(values: Frame, method: Image.Resampling) -> Frame:
        return np.asarray(Image.fromarray(values).transform(size, Image.Transform.AFFINE, matrix, method))

    there = moved(mask.astype(np.uint8) * 255, Image.Resampling.BILINEAR) > 127
    if there.sum() < 0.5 * factor**2 * mask.sum():
        return image, mask
    return moved(image, Image.Resampling.BILINEAR), there


def _lit_from_a_side(image: Frame, rng: np.random.Generator) -> Frame:
    """Make one side of an image darker and the other brighter."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] / max(height, width) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    gain = 1 + rng.uniform(0.2, 0.8) * (x * np.cos(angle) + y * np.sin(angle))
    lit: Frame = np.clip(image * gain[..., None], 0, 255).astype(np.uint8)
    return lit
