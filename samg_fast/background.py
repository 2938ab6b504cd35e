"""What stands where the target does not: a colour, noise, the frame itself without its details, pictures or videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image, ImageColor, ImageFilter, ImageOps

from samg_fast import ops
from samg_fast.checks import Frame, Mask, check_frame, describe, is_whole
from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, frames_in

__all__ = ["Background", "Backgrounds", "composite"]

Background: TypeAlias = str | os.PathLike[str] | Sequence[int] | Frame | None
"""``"black"`` (as is None), another colour's name, ``"#rrggbb"`` or (r, g, b); ``"noise"``; ``"blur"`` or ``"grey"``,
the frame itself; an (H, W, 3) uint8 picture; or the path of a picture, a video, or a folder of these."""

_BLUR = 0.06  # radius, as a share of the longest side: limbs and checks of a floor are gone


class Backgrounds:
    """The backgrounds of environments that step together.

    Pictures and videos are drawn anew for every episode; a video moves on by one picture with every frame, and begins
    again at its end. They fill the frame: what is too wide or too high is cut off at both ends.

    Parameters
    ----------
    background : Background
    count : int
        Number of environments.

    Raises
    ------
    InputTypeError, InputError
        It is none of what is allowed, or a colour is out of range.
    FileError
        A file cannot be read, or a folder has neither pictures nor videos.
    """

    def __init__(self, background: Background, count: int = 1) -> None:
        self._background, self._rng = background, np.random.default_rng()
        self._shows = _reader(background)
        self._files = _files(background) if self._shows is None else []
        self._playing: list[Iterator[Frame] | None] = [None] * count

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy begins with; it draws anew, as an open video can be in one place alone."""
        return {"background": self._background, "count": len(self._playing), "rng": self._rng}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["background"], state["count"])  # type: ignore[misc]  # a new object's
        self._rng = state["rng"]

    def seed(self, seed: int) -> None:
        """Draw from here on what this seed says."""
        self._rng = np.random.default_rng([abs(seed), 0xBAC])

    def start_episodes(self, which: Iterable[int]) -> None:
        """Draw anew for the episodes of these environments."""
        for index in which:
            self._playing[index] = None

    def behind(self, frames: Frame, which: Sequence[int]) -> Frame:
        """Return what stands behind the targets of some frames, for `samg_fast.ops.apply_mask`.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
        which : sequence of B int
            Their environments.

        Returns
        -------
        (3,) or (B, H, W, 3) uint8 array
        """
        if self._shows is not None:
            return self._shows(frames, self._rng)
        shown = [self._next(index) for index in which]
        return np.stack([_filling(image, frames.shape[2], frames.shape[1]) for image in shown])

    def compose(self, frames: Frame, masks: Mask, which: Sequence[int]) -> Frame:
        """Return some environments' frames where their masks are set, and a background elsewhere.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
        masks : (B, H, W) bool array
        which : sequence of B int
            See `behind`.

        Returns
        -------
        (B, H, W, 3) uint8 array
        """
        return ops.apply_mask(frames, masks, self.behind(frames, which))

    def _next(self, index: int) -> Frame:
        playing = self._playing[index]
        if playing is None:
            file = self._files[int(self._rng.integers(len(self._files)))]
            playing = self._playing[index] = _pictures(file)
        return next(playing)


def composite(frame: Frame, mask: Mask, background: Background = None, *, seed: int = 0) -> Frame:
    """Return a frame where its mask is set, and a background elsewhere.

    Parameters
    ----------
    frame : (H, W, 3) uint8 array
        RGB.
    mask : (H, W) bool array
    background : Background
    seed : int
        Of noise, and of which picture or video of a folder it is.

    Returns
    -------
    (H, W, 3) uint8 array

    Raises
    ------
    InputTypeError, InputError, FileError
        See `Backgrounds`.
    """
    frame, mask = check_frame("frame", frame), np.asarray(mask)
    behind = Backgrounds(background)
    behind.seed(seed)
    composed: Frame = behind.compose(frame[None], mask[None], [0])[0]
    return composed


_Shows: TypeAlias = Callable[[Frame, np.random.Generator], Frame]


def _reader(background: object) -> _Shows | None:
    """Return what makes a background of frames; None for files."""
    if isinstance(background, np.ndarray) and background.ndim == 3:
        picture = check_frame("background", background).copy()
        return lambda frames, _: np.stack([_filling(picture, frames.shape[2], frames.shape[1])] * len(frames))
    if background is None:
        return _plain((0, 0, 0))
    if isinstance(background, str):
        if background in _MADE:
            return _MADE[background]
        try:
            return _plain(ImageColor.getrgb(background)[:3])
        except ValueError:
            if not os.path.lexists(background):
                words = ", ".join(_MADE)
                raise InputError(
                    f"background must be a colour, {words}, or a picture, video or folder, and {background!r} is none: "
                    "there is no such file"
                ) from None
            return None
    if isinstance(background, os.PathLike):
        return None
    if isinstance(background, (Sequence, np.ndarray)) and len(background) == 3 and all(map(is_whole, background)):
        if not all(0 <= int(each) <= 255 for each in background):
            raise InputError(f"background must be a colour of three numbers from 0 to 255, not {tuple(background)}")
        return _plain(tuple(int(each) for each in background))
    raise InputTypeError(f"background must be a colour, a word, a picture or a path, not {describe(background)}")


def _plain(color: Sequence[int]) -> _Shows:
    shown = np.array(color, np.uint8)
    return lambda *_: shown


def _noise(frames: Frame, rng: np.random.Generator) -> Frame:
    return rng.integers(0, 256, frames.shape, np.uint8)


def _blur(frames: Frame, _: np.random.Generator) -> Frame:
    blur = ImageFilter.GaussianBlur(_BLUR * max(frames.shape[1:3]))
    return np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in frames])


def _grey(frames: Frame, _: np.random.Generator) -> Frame:
    grey = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])
    return np.repeat(grey[..., None], 3, axis=-1)


_MADE: dict[str, _Shows] = {"noise": _noise, "blur": _blur, "grey": _grey, "gray": _grey}


def _files(background: object) -> list[Path]:
    """Return the pictures and videos at a path, in the order of their names; check that they are there."""
    path = Path(cast("str | os.PathLike[str]", background))
    if not path.is_dir():
        frames_in(path)  # raises where it is neither
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    shown = [file for file in files if file.suffix.lower() in {*IMAGE_SUFFIXES, *VIDEO_SUFFIXES}]
    if not shown:
        raise FileError(f"cannot use {path} as background: the folder has neither pictures nor videos")
    return shown


def _pictures(file: Path) -> Iterator[Frame]:
    """Yield a file's pictures, over and over."""
    frames = frames_in(file)
    if frames.kind == "image":
        yield from repeat(next(image for _, image in frames))
    while True:
        for _, image in frames:
            yield image


def _filling(image: Frame, width: int, height: int) -> Frame:
    """Bring a picture to a size, without distortion."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.BILINEAR))
