"""Backgrounds for training: photographs, clips, procedural images and rendered scenes, varied at every draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.checks import Frame, Mask
from samg_fast.envs.backgrounds import VideoClip, procedural_clip

TRAINING_SEEDS = 1_000_000
"""Procedural backgrounds have seeds below this in training, and this or above in tests and demos."""


def jitter(image: Frame, strength: float, rng: np.random.Generator) -> Frame:
    """Change brightness, contrast, colour balance and hue of an image, by about ``strength``."""
    values = image.astype(np.float32)
    mixing = np.eye(3, dtype=np.float32) + rng.normal(0.0, 0.25 * strength, (3, 3)).astype(np.float32)
    gain = np.exp(rng.normal(0.0, 0.3 * strength, 3)).astype(np.float32)
    offset = rng.normal(0.0, 25.0 * strength, 3).astype(np.float32)
    changed = (values - 110.0) @ mixing * gain + 110.0 + offset
    return np.clip(changed, 0.0, 255.0).astype(np.uint8)


@dataclass(frozen=True)
class Odds:
    """How often each kind of background is drawn; procedural ones get the rest."""

    photo: float = 0.38
    clip: float = 0.30
    rendered: float = 0.17
    mixed: float = 0.2  # two in one image, side by side or one shining through the other


class Backgrounds:
    """Draws background images.

    Parameters
    ----------
    clips, photos : sequence of VideoClip
        Videos, and clips of one image.
    rng : numpy.random.Generator
    bank : int
        How many procedural images are kept at a time; they are slowly replaced.
    """

    def __init__(
        self,
        clips: Sequence[VideoClip],
        photos: Sequence[VideoClip],
        rng: np.random.Generator,
        *,
        bank: int = 200,
    ) -> None:
        self.clips, self.photos, self.rng = clips, photos, rng
        self.odds = Odds()
        self.bank = [self._procedural() for _ in range(bank)]

    def draw(self, side: int, rendered: Callable[[], tuple[Frame, Mask]] | None = None) -> tuple[Frame, Mask]:
        """Return a random (side, side, 3) image, and the mask of rendered objects in it, which are distractors.

        ``rendered`` returns a rendered image and the mask of its objects.
        """
        rng = self.rng
        image, objects = self._varied(side, rendered)
        if rng.random() < self.odds.mixed:
            other, more = self._varied(side, rendered)
            if rng.random() < 0.7:
                here = _half_plane(side, rng)
                return np.where(here[..., None], image, other), np.where(here, objects, more)
            if not more.any() and not objects.any():
                share = rng.uniform(0.3, 0.7)
                return (share * image + (1 - share) * other).astype(np.uint8), objects
        return image, objects

    def _varied(self, side: int, rendered: Callable[[], tuple[Frame, Mask]] | None) -> tuple[Frame, Mask]:
        """Return a random crop of a random image, flipped, with its colours changed."""
        rng, kind = self.rng, self.rng.random()
        odds, objects = self.odds, None
        if self.photos and kind < odds.photo:
            image = self.photos[int(rng.integers(len(self.photos)))].frames[0]
            share = float(np.exp(rng.uniform(np.log(0.15), 0.0)))
        elif self.clips and kind < odds.photo + odds.clip:
            clip = self.clips[int(rng.integers(len(self.clips)))]
            image = clip.frames[int(rng.integers(len(clip.frames)))]
            share = 1.0 if rng.random() < 0.4 else float(rng.uniform(0.35, 1.0))
        elif rendered is not None and kind < odds.photo + odds.clip + odds.rendered:
            image, objects = rendered()
            share = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.4, 1.0))
        else:
            index = int(rng.integers(len(self.bank)))
            if rng.random() < 0.05:
                self.bank[index] = self._procedural()
            image, share = self.bank[index], float(rng.uniform(0.4, 1.0))
        height, width = image.shape[:2]
        crop = max(int(min(height, width) * share), 16)
        top, left = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
        box = (left, top, left + crop, top + crop)
        found = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))
        if objects is None:
            mask = np.zeros((side, side), bool)
        else:
            mask = np.asarray(Image.fromarray(objects).resize((side, side), Image.Resampling.NEAREST, box=box))
        if rng.random() < 0.5:
            found, mask = found[:, ::-1], mask[:, ::-1]
        if rng.random() < 0.5:
            found = jitter(found, 0.8, rng)
        return found, mask

    def _procedural(self) -> NDArray[np.uint8]:
        clip = procedural_clip(int(self.rng.integers(TRAINING_SEEDS)))
        return clip.frame(int(self.rng.integers(200)))


def _half_plane(side: int, rng: np.random.Generator) -> Mask:
    """Return a random half of the image, mostly cut upright or level."""
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    y, x = (np.mgrid[:side, :side] / side) - rng.uniform(0.25, 0.75, (2, 1, 1))
    half: Mask = x * np.cos(angle) + y * np.sin(angle) > 0
    return half
