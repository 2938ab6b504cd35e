"""Builds training pairs from the pool; target, background, colours and distractors are random each time.

A pair is two images, each the *reference* of the other: one shows what the target is, in the other it is to be found.
The lessons differ in what the target is and where it is to be found; together they teach that the target is what was
shown, and not whatever looks like a robot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.checks import Frame, Mask
from samg_fast.envs.backgrounds import VideoClip
from samg_fast.envs.rendering import KIND_FLOOR, KIND_MOVING, KIND_SKY, KIND_STATIC

from .backgrounds import Backgrounds, jitter
from .pool import Group

Lesson = Literal["whole", "part", "half", "scenery", "absent"]
LESSONS: tuple[Lesson, ...] = get_args(Lesson)

_Pixel = TypeVar("_Pixel", bound=np.generic)


@dataclass(frozen=True)
class Lessons:
    """How often a pair is about what.

    Attributes
    ----------
    whole : float
        All that moves.
    part : float
        One or a few neighbouring bodies.
    half : float
        The upper, lower, left or right half of what moves; both images show the same pose.
    scenery : float
        What does not move: the floor, the sky, or objects that stand.
    absent : float
        Each image shows another scene: nothing is to be found.
    """

    whole: float = 0.54
    part: float = 0.14
    half: float = 0.11
    scenery: float = 0.05
    absent: float = 0.16

    def draw(self, rng: np.random.Generator) -> Lesson:
        """Draw one."""
        odds = np.array([getattr(self, name) for name in LESSONS])
        return LESSONS[int(rng.choice(len(LESSONS), p=odds / odds.sum()))]


@dataclass(frozen=True)
class Example:
    """One image of a pair.

    Attributes
    ----------
    frame : (F, F, 3) uint8
    shown : (F, F) bool
        What the target is, where this image is the reference.
    target : (F, F) bool
        What is to be found in this image, where the other one is the reference.
    moving : (F, F) bool
        Everything that moves.
    rival : (F, F) bool
        Distractors: everything else that moves, and all other objects in the image.
    body : (F, F) uint8
        The moving body of the pair's scene at each pixel, 0 for none.
    scene : int
        Number of the robot, or of the random scene, that is shown.
    """

    frame: Frame
    shown: Mask
    target: Mask
    moving: Mask
    rival: Mask
    body: NDArray[np.uint8]
    scene: int

    def flipped(self) -> Example:
        """Return the mirror image."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        turned: dict[str, Any] = {
            name: np.ascontiguousarray(value[:, ::-1]) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }
        return Example(**turned)


@dataclass(frozen=True)
class View:
    """A rendered image of the pool: (F, F, 3) colours, and (F, F) kinds and moving bodies."""

    rgb: Frame
    kind: NDArray[np.uint8]
    body: NDArray[np.uint8]

    @property
    def moves(self) -> Mask:
        """Mask of everything that moves."""
        moves: Mask = self.kind == KIND_MOVING
        return moves


class Composer:
    """Makes pairs of one image size.

    Parameters
    ----------
    groups : sequence of Group
        All of one size.
    weights : sequence of float
        How often to draw each.
    clips, photos : sequence of VideoClip
    lessons : Lessons
    rng : numpy.random.Generator
    rivals : float
        Share of images, among those that are not clean, in which things of other scenes are pasted.
    clean : pair of float
        Share of references and of queries that stay as they were rendered.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        weights: Sequence[float],
        clips: Sequence[VideoClip],
        photos: Sequence[VideoClip],
        lessons: Lessons,
        rng: np.random.Generator,
        *,
        rivals: float = 0.6,
        clean: tuple[float, float] = (0.62, 0.12),
    ) -> None:
        self.groups, self.lessons, self.rng, self.rivals, self.clean = groups, lessons, rng, rivals, clean
        sources = sorted({group.source for group in groups} - {"primitives"})
        self._scenes = {
            id(group): sources.index(group.source) if group.source in sources else len(sources) + index
            for index, group in enumerate(groups)
        }
        self.weights = np.asarray(weights, float) / np.sum(weights)
        self.backgrounds = Backgrounds(clips, photos, rng)

    def pair(self, lesson: Lesson | None = None) -> tuple[Example, Example]:
        """Return a reference and a query."""
        rng = self.rng
        group = self._group()
        lesson = lesson or self.lessons.draw(rng)
        first, second = (_view(group, int(index)) for index in rng.choice(len(group.rgb), 2, replace=False))
        if lesson == "half":
            second = first
        if lesson == "absent":
            return self._absent(group, first)
        if lesson == "scenery" and (kinds := _scenery(first, second, rng)) is not None:
            masks = [np.isin(view.kind, kinds) for view in (first, second)]
            clean: tuple[bool, bool] = (True, True)
        else:
            masks = _targets(first, second, lesson, rng)
            clean = (bool(rng.random() < self.clean[0]), bool(rng.random() < self.clean[1]))
        recolour = rng.random() < 0.5
        pair = [
            self._example(group, view, mask, mask, clean=as_rendered, recolour=recolour)
            for view, mask, as_rendered in zip((first, second), masks, clean, strict=True)
        ]
        flip = rng.random() < 0.5
        flips = (flip, flip if rng.random() < 0.85 or lesson == "half" else not flip)
        one, other = (each.flipped() if turn else each for each, turn in zip(pair, flips, strict=True))
        return one, other

    def _absent(self, group: Group, first: View) -> tuple[Example, Example]:
        """Return images of two scenes; each one's target is not in the other."""
        rng = self.rng
        other = self._group(unlike=group)
        second = _view(other, int(rng.integers(len(other.rgb))))
        pair = []
        for origin, view in ((group, first), (other, second)):
            lesson: Lesson = "whole" if rng.random() < 0.8 else "part"
            (shown, _), nothing = _targets(view, view, lesson, rng), np.zeros(view.kind.shape, bool)
            clean = bool(rng.random() < 0.45)
            example = self._example(origin, view, shown, nothing, clean=clean, recolour=rng.random() < 0.5)
            # Parts are matched between images of one scene only
            pair.append(replace(example, body=np.zeros_like(example.body)))
        return pair[0], pair[1]

    def _example(self, group: Group, view: View, shown: Mask, target: Mask, *, clean: bool, recolour: bool) -> Example:
        """Compose one image: background, colours, the target's place, and things of other scenes."""
        rng = self.rng
        elsewhere = not clean and rng.random() < 0.3
        if elsewhere:
            view, shown, target = _elsewhere(view, shown, target, rng)
        frame, moves = view.rgb, view.moves
        pasted, over = np.zeros(moves.shape, bool), np.zeros(moves.shape, bool)
        replaced = np.zeros(moves.shape, bool)
        if not clean:
            if recolour and rng.random() < 0.75:
                frame = np.where(moves[..., None], jitter(frame, rng.uniform(0.3, 1.3), rng), frame)
            replaced = ~moves if elsewhere else _replaced(view.kind, rng)
            if replaced.any():
                if elsewhere and rng.random() < 0.5:  # beside what is at home there
                    behind, objects = self._rendered(group)
                else:
                    behind, objects = self.backgrounds.draw(len(moves), lambda: self._rendered(group))
                frame = np.where(replaced[..., None], behind, frame)
                pasted = objects & replaced
            elif rng.random() < 0.5:
                frame = np.where(moves[..., None], frame, jitter(frame, 1.0, rng))
        if rng.random() < (0.25 if clean else self.rivals):
            for _ in range(int(rng.choice([1, 1, 2]))):
                frame, there = self._paste(group, frame, view, shown, copies=not recolour)
                over |= there
        if not clean:
            if rng.random() < 0.3:
                frame = jitter(frame, 0.4, rng)
            if rng.random() < 0.15:
                noise = rng.normal(0.0, rng.uniform(1.0, 8.0), frame.shape)
                frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
        standing = (view.kind == KIND_STATIC) & ~replaced
        visible, pasted = ~over, pasted | over
        own = moves & visible
        return Example(
            frame=frame,
            shown=shown & visible,
            target=target & visible,
            moving=own | pasted,
            rival=((own | standing | pasted) & ~(target & visible)),
            body=np.where(own, view.body, 0).astype(np.uint8),
            scene=self._scenes[id(group)],
        )

    def _paste(self, group: Group, frame: Frame, view: View, shown: Mask, *, copies: bool) -> tuple[Frame, Mask]:
        """Paste a thing of another scene, or the target's copy in other colours, into a frame.

        Returns
        -------
        frame
        there : (F, F) bool
            Where the thing is, behind what moves or in front of it.
        """
        rng, side = self.rng, len(frame)
        nothing = np.zeros((side, side), bool)
        copy = copies and rng.random() < 0.15
        origin = group if copy else self._group(unlike=group)
        other = _view(origin, int(rng.integers(len(origin.rgb))))
        cut = other.moves
        if rng.random() < 0.2:
            cut = _targets(other, other, "part", rng)[0]
        thing = other.rgb
        if copy:
            thing = jitter(thing, 1.6, rng)
        elif rng.random() < 0.2:  # something in the target's colours
            thing = _in_colours_of(thing, cut, frame, shown)
        elif rng.random() < 0.4:
            thing = jitter(thing, 0.7, rng)
        place = _placement(cut, rng, 0.55, 1.35)
        thing, cut = place(thing), place(cut)
        least = 0.6 * shown.sum()  # of the target that must stay in sight
        if rng.random() < 0.65 or (shown & ~cut).sum() < least:
            cut = cut & ~view.moves
        if (shown & ~cut).sum() < least:
            return frame, nothing
        return np.where(cut[..., None], thing, frame), cut

    def _rendered(self, unlike: Group) -> tuple[Frame, Mask]:
        group = self._group(unlike=unlike)
        view = _view(group, int(self.rng.integers(len(group.rgb))))
        return view.rgb, view.moves

    def _group(self, *, unlike: Group | None = None) -> Group:
        """Draw a group; of another source than ``unlike``, unless it is of random objects or there is no other."""
        for _ in range(20):
            found = self.groups[int(self.rng.choice(len(self.groups), p=self.weights))]
            if (
                unlike is None
                or found.source != unlike.source
                or (found.source == "primitives" and found is not unlike)
            ):
                break
        return found


def _view(group: Group, index: int) -> View:
    kind = group.kind[index]
    return View(group.rgb[index], kind, np.where(kind == KIND_MOVING, group.body[index], 0).astype(np.uint8))


def _targets(first: View, second: View, lesson: Lesson, rng: np.random.Generator) -> list[Mask]:
    """Return the masks of one target in two images."""
    if lesson == "half":
        return [_half(first.moves, rng)] * 2
    if lesson == "part":
        bodies = choose_bodies(first.body, second.body, rng)
        return [np.isin(view.body, bodies) for view in (first, second)]
    return [first.moves, second.moves]


def choose_bodies(first: NDArray[np.uint8], second: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Choose the bodies of a target that is a part: neighbours in the kinematic tree; all bodies if none is visible.

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
    for _ in range(4 if len(present) > 1 else 0):
        # MuJoCo numbers bodies depth first, so consecutive numbers form one or a few limbs.
        start = int(rng.integers(len(present)))
        chosen = present[start : start + int(rng.integers(1, len(present)))]
        if min(int(np.isin(image, chosen).sum()) for image in (first, second)) >= 16:
            return chosen.astype(np.uint8)
    return present.astype(np.uint8)


def _half(mask: Mask, rng: np.random.Generator) -> Mask:
    """Return the upper, lower, left or right part of a mask, mostly about half of it."""
    rows, columns = np.nonzero(mask)
    axis = rows if rng.random() < 0.7 else columns
    at = np.quantile(axis, rng.uniform(0.35, 0.65)) if rng.random() < 0.5 else (axis.min() + axis.max() + 1) / 2
    chosen = axis < at if rng.random() < 0.5 else axis >= at
    half = np.zeros_like(mask)
    half[rows[chosen], columns[chosen]] = True
    return half if half.any() else mask


def _scenery(first: View, second: View, rng: np.random.Generator) -> NDArray[np.uint8] | None:
    """Choose what does not move: one or several kinds that cover a part of both images; None if there are none."""
    choices = ((KIND_FLOOR,), (KIND_SKY,), (KIND_STATIC,), (KIND_FLOOR, KIND_SKY, KIND_STATIC))
    for index in rng.permutation(len(choices)):
        kinds = np.array(choices[index], np.uint8)
        shares = [np.isin(view.kind, kinds).mean() for view in (first, second)]
        if min(shares) > 0.03 and (len(kinds) > 1 or max(shares) < 0.97):
            return kinds
    return None


def _replaced(kind: NDArray[np.uint8], rng: np.random.Generator) -> Mask:
    """Choose what a background replaces: nothing, the sky, sky and floor, or all that does not move."""
    choice = rng.random()
    if choice < 0.15:
        return np.zeros(kind.shape, bool)
    if choice < 0.27:
        return np.asarray(kind == KIND_SKY)
    kept = (KIND_STATIC, KIND_MOVING) if choice < 0.7 else (KIND_MOVING,)
    return ~np.isin(kind, kept)


def _in_colours_of(thing: Frame, cut: Mask, frame: Frame, target: Mask) -> Frame:
    """Return a thing with the mean and the spread of the target's colours."""
    if not cut.any() or not target.any():
        return thing
    own, wanted = thing[cut].astype(np.float32), frame[target].astype(np.float32)
    changed = (thing - own.mean(0)) * (wanted.std(0) + 5) / (own.std(0) + 5) + wanted.mean(0)
    recoloured: Frame = np.clip(changed, 0, 255).astype(np.uint8)
    return recoloured


def _placement(
    cut: Mask, rng: np.random.Generator, smallest: float, largest: float
) -> Callable[[NDArray[_Pixel]], NDArray[_Pixel]]:
    """Draw a scale, a flip and a shift that put the middle of ``cut`` somewhere in the image.

    Returns
    -------
    callable
        Moves an image or a mask of the same size; what enters is 0.
    """
    side = len(cut)
    size, mirrored = int(side * rng.uniform(smallest, largest)), bool(rng.random() < 0.5)

    def resized(image: NDArray[_Pixel]) -> NDArray[_Pixel]:
        method = Image.Resampling.BILINEAR if image.ndim == 3 else Image.Resampling.NEAREST
        found = np.asarray(Image.fromarray(image).resize((size, size), method))
        return found[:, ::-1] if mirrored else found

    rows, columns = np.nonzero(resized(cut))
    middle = [(each.min() + each.max()) // 2 if len(each) else size // 2 for each in (rows, columns)]
    down, right = (int(rng.integers(side)) - int(each) for each in middle)
    into = [slice(max(shift, 0), min(size + shift, side)) for shift in (down, right)]
    out_of = [slice(max(-shift, 0), min(side - shift, size)) for shift in (down, right)]

    def place(image: NDArray[_Pixel]) -> NDArray[_Pixel]:
        placed = np.zeros_like(image)
        placed[into[0], into[1]] = resized(image)[out_of[0], out_of[1]]
        return placed

    return place


def _elsewhere(view: View, shown: Mask, target: Mask, rng: np.random.Generator) -> tuple[View, Mask, Mask]:
    """Put what moves elsewhere in the image, at another size; nothing else remains, and most of the target is in it."""
    for _ in range(10):
        place = _placement(view.moves, rng, 0.7, 1.35)
        moves, placed_shown, placed_target = place(view.moves), place(shown), place(target)
        if min(placed_shown.sum() - 0.6 * shown.sum(), placed_target.sum() - 0.6 * target.sum()) >= 0:
            kind = np.where(moves, KIND_MOVING, KIND_SKY).astype(np.uint8)
            moved = View(place(view.rgb), kind, np.where(moves, place(view.body), 0).astype(np.uint8))
            return moved, placed_shown, placed_target
    return view, shown, target


def collate(pairs: Sequence[tuple[Example, Example]], side: int) -> dict[str, NDArray[np.generic]]:
    """Stack pairs of one image size: all references, then all queries.

    Returns
    -------
    dict
        ``image`` (2n, 3, S, S) uint8, resized to the encoder's side as the runtime does, ``shown``, ``target``,
        ``moving`` and ``rival`` (2n, F, F) bool, ``body`` (2n, F, F) uint8, ``scene`` (2n,) int.
    """
    examples = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    images = [
        np.asarray(Image.fromarray(e.frame).resize((side, side), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        for e in examples
    ]
    stacked = {name: np.stack([getattr(e, name) for e in examples]) for name in _MASKS}
    return {"image": np.stack(images), **stacked, "scene": np.array([e.scene for e in examples])}


_MASKS = ("shown", "target", "moving", "rival", "body")


@dataclass(frozen=True)
class Material:
    """What pairs are made of: groups of the pool, clips, photographs; and how often a source is drawn, 1 if missing."""

    groups: Sequence[Group]
    clips: Sequence[VideoClip] = ()
    photos: Sequence[VideoClip] = ()
    emphasis: Mapping[str, float] = field(default_factory=dict)

    def composers(self, lessons: Lessons, rng: np.random.Generator) -> dict[int, Composer]:
        """Return a composer for each image size."""
        by_side: dict[int, list[Group]] = {}
        for group in self.groups:
            by_side.setdefault(group.side, []).append(group)
        return {
            side: Composer(
                members, [self.emphasis.get(group.source, 1.0) for group in members], self.clips, self.photos,
                lessons, rng,
            )
            for side, members in sorted(by_side.items())
        }  # fmt: skip


def stream(
    material: Material, lessons: Lessons, *, pairs: int, side: int, seed: Sequence[int]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yield batches of ``pairs`` pairs forever.

    All of a batch have one image size, which is drawn in proportion to the number of groups that have it. ``side`` is
    that of the encoder's input in pixels.
    """
    rng = np.random.default_rng(list(seed))
    composers = material.composers(lessons, rng)
    sizes = list(composers)
    odds = np.array([len(composers[size].groups) for size in sizes], float)
    while True:
        composer = composers[sizes[rng.choice(len(sizes), p=odds / odds.sum())]]
        yield collate([composer.pair() for _ in range(pairs)], side)
