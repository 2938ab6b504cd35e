"""Builds training pairs from the pool; background, colours, flip and target are random each time.

A pair is two images of one scene, *reference* and *query*, with masks of the same target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.checks import Frame, Mask
from samg_fast.envs.backgrounds import VideoClip, procedural_clip
from samg_fast.envs.rendering import KIND_FLOOR, KIND_MOVING, KIND_SKY, KIND_STATIC

from .pool import Group

TRAINING_SEEDS = 1_000_000
"""Procedural backgrounds have seeds below this in training, and this or above in tests and demos."""


@dataclass(frozen=True)
class Example:
    """One image of a pair.

    Attributes
    ----------
    frame : (F, F, 3) uint8
    target, moving : (F, F) bool
        Masks of the target, and of everything that moves.
    rival : (F, F) bool
        Mask of distractors: everything else that moves, and all other objects in the scene.
    body : (F, F) uint8
        The moving body at each pixel, 0 for none.
    """

    frame: Frame
    target: Mask
    moving: Mask
    rival: Mask
    body: NDArray[np.uint8]

    def flipped(self) -> Example:
        """Return the mirror image."""
        return Example(*(np.ascontiguousarray(getattr(self, field.name)[:, ::-1]) for field in fields(self)))


class Backgrounds:
    """Background images: from clips, and procedural ones from a bank that is slowly replaced."""

    def __init__(self, clips: Sequence[VideoClip], rng: np.random.Generator, *, bank: int = 300) -> None:
        self.clips = clips
        self.rng = rng
        self.bank = [self._procedural() for _ in range(bank)]

    def _procedural(self) -> Frame:
        clip = procedural_clip(int(self.rng.integers(TRAINING_SEEDS)))
        return clip.frame(int(self.rng.integers(200)))

    def draw(self, side: int) -> Frame:
        """Return a random (side, side, 3) image."""
        rng = self.rng
        if self.clips and rng.random() < 0.65:
            clip = self.clips[int(rng.integers(len(self.clips)))]
            image = clip.frame(int(rng.integers(len(clip.frames))))
        else:
            index = int(rng.integers(len(self.bank)))
            if rng.random() < 0.05:
                self.bank[index] = self._procedural()
            image = self.bank[index]
        height, width = image.shape[:2]
        crop = int(min(height, width) * (1.0 if rng.random() < 0.4 else rng.uniform(0.45, 1.0)))
        top, left = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
        box = (left, top, left + crop, top + crop)
        resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))
        return resized[:, ::-1] if rng.random() < 0.5 else resized


def jitter(image: Frame, strength: float, rng: np.random.Generator) -> Frame:
    """Change brightness, contrast, colour balance and hue of an image, by about ``strength``."""
    values = image.astype(np.float32)
    mixing = np.eye(3, dtype=np.float32) + rng.normal(0.0, 0.25 * strength, (3, 3)).astype(np.float32)
    gain = np.exp(rng.normal(0.0, 0.3 * strength, 3)).astype(np.float32)
    offset = rng.normal(0.0, 25.0 * strength, 3).astype(np.float32)
    changed = (values - 110.0) @ mixing * gain + 110.0 + offset
    return np.clip(changed, 0.0, 255.0).astype(np.uint8)


def choose_target(first: NDArray[np.uint8], second: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Choose the bodies of the target: mostly all that move, else neighbours in the kinematic tree.

    Parameters
    ----------
    first, second : (H, W) uint8
        Body at each pixel of the two images, 0 where nothing moves.
    rng : numpy.random.Generator

    Returns
    -------
    (n,) uint8
        Bodies; each is visible in at least one image, and together they are visible in both.
    """
    present = np.union1d(first, second)
    present = present[present > 0]
    if rng.random() < 0.7 or len(present) < 2:
        return present.astype(np.uint8)
    for _ in range(4):
        # MuJoCo numbers bodies depth first, so consecutive numbers form one or a few limbs.
        start = int(rng.integers(len(present)))
        chosen = present[start : start + int(rng.integers(1, len(present)))]
        if min(int(np.isin(image, chosen).sum()) for image in (first, second)) >= 16:
            return chosen.astype(np.uint8)
    return present.astype(np.uint8)


def compose(
    rgb: Frame, kind: NDArray[np.uint8], backgrounds: Backgrounds, rng: np.random.Generator, *, clean: bool
) -> tuple[Frame, Mask]:
    """Return a frame, as rendered or with another background and colours, and the mask of replaced pixels."""
    if clean:
        return rgb, np.zeros(kind.shape, bool)
    frame = rgb
    if rng.random() < 0.35:  # recolour what moves
        frame = np.where((kind == KIND_MOVING)[..., None], jitter(frame, 0.5, rng), frame)
    choice = rng.random()
    if choice < 0.2:
        replaced = np.zeros(kind.shape, bool)
        if rng.random() < 0.5:
            frame = np.where((kind != KIND_MOVING)[..., None], jitter(frame, 1.0, rng), frame)
    elif choice < 0.3:
        replaced = kind == KIND_SKY
    elif choice < 0.75:
        replaced = (kind == KIND_SKY) | (kind == KIND_FLOOR)
    else:
        replaced = kind != KIND_MOVING
    if replaced.any():
        behind = backgrounds.draw(len(kind))
        if rng.random() < 0.4:
            behind = jitter(behind, 0.8, rng)
        frame = np.where(replaced[..., None], behind, frame)
    if rng.random() < 0.3:
        frame = jitter(frame, 0.4, rng)
    if rng.random() < 0.15:
        noise = rng.normal(0.0, rng.uniform(1.0, 8.0), frame.shape)
        frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
    return frame, replaced


def make_pair(group: Group, backgrounds: Backgrounds, rng: np.random.Generator) -> tuple[Example, Example]:
    """Draw two views of a group with one target, and compose their frames; the reference is usually clean."""
    views = [int(i) for i in rng.choice(len(group.rgb), 2, replace=False)]
    moving = [group.kind[view] == KIND_MOVING for view in views]
    bodies = [np.where(moves, group.body[view], 0).astype(np.uint8) for moves, view in zip(moving, views, strict=True)]
    chosen = choose_target(bodies[0], bodies[1], rng)
    flip = bool(rng.random() < 0.5)
    clean = (rng.random() < 0.65, rng.random() < 0.12)
    examples = []
    for view, moves, body, as_rendered in zip(views, moving, bodies, clean, strict=True):
        kind = group.kind[view]
        frame, replaced = compose(group.rgb[view], kind, backgrounds, rng, clean=bool(as_rendered))
        target = np.isin(body, chosen)
        rival = (moves & ~target) | ((kind == KIND_STATIC) & ~replaced)
        example = Example(frame, target, moves, rival, body)
        examples.append(example.flipped() if flip else example)
    return examples[0], examples[1]


def collate(pairs: Sequence[tuple[Example, Example]], side: int) -> dict[str, NDArray[np.generic]]:
    """Stack pairs of one image size: all references, then all queries.

    Returns
    -------
    dict
        ``image`` (2n, 3, S, S) uint8, resized to the encoder's side as the runtime does, ``target``, ``moving`` and
        ``rival`` (2n, F, F) bool, ``body`` (2n, F, F) uint8.
    """
    examples = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    images = [
        np.asarray(Image.fromarray(e.frame).resize((side, side), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        for e in examples
    ]
    return {
        "image": np.stack(images),
        "target": np.stack([e.target for e in examples]),
        "moving": np.stack([e.moving for e in examples]),
        "rival": np.stack([e.rival for e in examples]),
        "body": np.stack([e.body for e in examples]),
    }


def stream(
    groups: Sequence[Group],
    clips: Sequence[VideoClip],
    *,
    pairs: int,
    side: int,
    seed: Sequence[int],
    emphasis: Mapping[str, float] | None = None,
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yield batches forever.

    Parameters
    ----------
    groups : sequence of Group
    clips : sequence of VideoClip
    pairs : int
        Pairs in a batch. All have one image size, which is drawn in proportion to the number of groups that have it.
    side : int
        Side of the encoder's input in pixels.
    seed : sequence of int
    emphasis : mapping, optional
        Source -> weight of its groups when drawing; 1 if missing.
    """
    rng = np.random.default_rng(list(seed))
    backgrounds = Backgrounds(clips, rng)
    by_side: dict[int, list[Group]] = {}
    for group in groups:
        by_side.setdefault(group.side, []).append(group)
    sizes = sorted(by_side)
    odds = np.array([len(by_side[size]) for size in sizes], float) / len(groups)
    weights = {
        size: np.array([(emphasis or {}).get(group.source, 1.0) for group in members])
        for size, members in by_side.items()
    }
    while True:
        size = sizes[rng.choice(len(sizes), p=odds)]
        drawn = rng.choice(len(weights[size]), pairs, p=weights[size] / weights[size].sum())
        yield collate([make_pair(by_side[size][index], backgrounds, rng) for index in drawn], side)
