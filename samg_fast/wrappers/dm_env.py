"""Masked observations for dm_control's environments, and all others that speak dm_env."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from samg_fast.checks import check_whole
from samg_fast.errors import InputError, InputTypeError, MissingExtraError
from samg_fast.loading import load
from samg_fast.media import read_image
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from samg_fast.wrappers.masking import CHANNELS, Lost, Masking, Mode, Reference, check_segmenter
from samg_fast.wrappers.pixels import find_pixels
from samg_fast.wrappers.stacking import Stack

try:
    import dm_env
    from dm_env import specs
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.wrappers.dm_env", "dmc") from error

__all__ = ["FrameStack", "FrameStackWithSAMG", "MaskedPixels"]


class _Wrapper(dm_env.Environment):  # type: ignore[misc]  # dm_env has no types
    """An environment that is another one in all that is not said otherwise, attributes and `close` included."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def reset(self) -> Any:
        return self._observed(self._env.reset())

    def step(self, action: Any) -> Any:
        return self._observed(self._env.step(action))

    def observation_spec(self) -> Any:
        return self._env.observation_spec()

    def action_spec(self) -> Any:
        return self._env.action_spec()

    def reward_spec(self) -> Any:
        return self._env.reward_spec()

    def discount_spec(self) -> Any:
        return self._env.discount_spec()

    def close(self) -> None:
        self._env.close()

    def __getattr__(self, name: str) -> Any:
        # What copying and pickling ask for: the one inside has other answers, and a copy has none inside at first
        if name == "_env" or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._env, name)

    def _observed(self, time_step: Any) -> Any:
        """Return a time step with another observation."""
        raise NotImplementedError


class MaskedPixels(_Wrapper):
    """An environment whose pixel observations show the target alone.

    One frame is segmented for every observation of the environment inside. So this belongs outside an action repeat,
    whose frames in between nobody sees, and inside a frame stack. Rewards, discounts, step types and all other
    observations are passed on untouched; `segmenter` is not closed with the environment, as others may use it.

    Parameters
    ----------
    env : dm_env.Environment
        Its pixel observation is (H, W, 3) uint8 RGB, or (1, H, W, 3) as in ``dm_control.manipulation``.
    segmenter : Segmenter
    target : Target, optional
        What to cut out, made with the segmenter's bundle.
    reference : tuple, optional
        In place of a target, the arguments of `Segmenter.identify`: (image, mask), or with points and parts. The
        target is identified at the first reset.
    pixels_key : str or None
        Name of the pixel observation; None where it is the whole observation.
    mode : {"composite", "mask", "rgbm"}
        What stands in its place: the masked picture, (H, W, 3); the mask alone, (H, W, 1), 0 and 255; or the picture as
        it is with the mask as a fourth channel, (H, W, 4). All are uint8.
    threshold : float, optional
        A target found with a score below is lost; by default it never is.
    lost : {"empty", "hold", "frame"}
        What stands for the mask of a lost target: none of the frame; the last mask of the episode, none where it has
        had none; or all of the frame, which passes it through.

    Attributes
    ----------
    segmentation : Segmentation or None
        What the segmenter said of the latest frame, its score too; None before the first.
    target : Target or None
        None before it is identified.

    Raises
    ------
    InputError, InputTypeError
        An argument is not one of the above, or the environment has no such pixel observation. From `reset` and `step`
        too, where an observation is not what its spec says.
    BundleError
        The target was made with another bundle.
    """

    def __init__(
        self,
        env: Any,
        segmenter: Segmenter,
        target: Target | None = None,
        *,
        reference: Reference | None = None,
        pixels_key: str | None = "pixels",
        mode: Mode = "composite",
        threshold: float | None = None,
        lost: Lost = "empty",
    ) -> None:
        super().__init__(env)
        spec = _observation_spec(env)
        self._pixels, of_pixels = find_pixels(spec, pixels_key)
        if self._pixels.pictures != 1:
            raise InputError(
                f"env must show one picture at a time, (H, W, 3) or (1, H, W, 3), not {self._pixels.shape}"
            )
        self._masking = Masking(segmenter, target, reference, count=1, mode=mode, threshold=threshold, lost=lost)
        self._shape = (*self._pixels.shape[:-1], CHANNELS[mode])
        masked = specs.BoundedArray(self._shape, np.uint8, 0, 255, of_pixels.name)
        self._spec = self._pixels.write(spec, masked)

    @property
    def segmentation(self) -> Segmentation | None:
        """What the segmenter said of the latest frame; None before the first."""
        return self._masking.found[0] if self._masking.found else None

    @property
    def target(self) -> Target | None:
        """What is cut out; None before it is identified."""
        return self._masking.targets[0] if self._masking.targets else None

    def observation_spec(self) -> Any:
        """Return the spec inside, with that of the masked pixels in place of the pixels'."""
        return self._spec

    def _observed(self, time_step: Any) -> Any:
        if time_step.first():
            self._masking.begin()
        pictures = self._masking(self._pixels.read(time_step.observation)).reshape(self._shape)
        return time_step._replace(observation=self._pixels.write(time_step.observation, pictures))


class FrameStack(_Wrapper):
    """An environment whose pictures are the latest few together, channels first; see `samg_fast.envs.stack`.

    Parameters
    ----------
    env : dm_env.Environment
    num_frames : int
        How many.
    pixels_key : str
        Which of the observations are the pictures, (H, W, C) or (1, H, W, C) uint8; the others stay as they are.

    Raises
    ------
    InputError
        There are no such pictures, or they are stacked already; says what there is.
    """

    def __init__(self, env: Any, num_frames: int, pixels_key: str = "pixels") -> None:
        super().__init__(env)
        observations = _observation_spec(env)
        if not isinstance(observations, Mapping) or pixels_key not in observations:
            there = ", ".join(observations) if isinstance(observations, Mapping) else observations
            raise InputError(f"pixels_key: there is no observation {pixels_key!r}, there are {there}")
        self._key, self._stack = pixels_key, Stack(num_frames, pixels_key, observations[pixels_key])
        stacked = specs.BoundedArray(self._stack.shape, np.uint8, 0, 255, pixels_key)
        self._spec = {**observations, pixels_key: stacked}

    def observation_spec(self) -> Any:
        """Return the specs inside, with that of the stack in place of the pictures'."""
        return self._spec

    def _observed(self, time_step: Any) -> Any:
        stacked = self._stack(time_step.observation[self._key], first=time_step.first())
        return time_step._replace(observation={**time_step.observation, self._key: stacked})


class FrameStackWithSAMG(_Wrapper):
    """The official code's ``FrameStackWrapperWithSAM``: masked frames, channels first, the latest ones stacked.

    The observation is one (3 * num_frames, H, W) uint8 array, oldest frame first; at an episode's start it holds its
    first frame only. The target is identified when this is made, from masked pictures read as the official code reads
    them, and its mask weights are learned from them (`Segmenter.adapt`).

    Parameters
    ----------
    env : dm_env.Environment
        As in `MaskedPixels`.
    num_frames : int
        How many frames to stack.
    pixels_key : str
        Name of the pixel observation.
    handmade_4_SAM : config
        Anything with these attributes, or a mapping with these keys: ``original_image`` and ``masked_image``, files of
        a picture and of the same picture, black outside the target; ``extra_points_list``, points (x, y) on the target,
        in pixels; and ``extra_masked_images_list``, files of masked pictures of its parts. A list may be None.
    segmenter : Segmenter or str
        Or the name or folder of a bundle, which is opened here and closed with the environment.
    threshold, lost
        As in `MaskedPixels`.

    Attributes
    ----------
    segmentation : Segmentation or None
    target : Target

    Raises
    ------
    InputError, InputTypeError
        An argument is not one of the above, the environment has no such pixel observation, or a masked picture shows
        nothing that the official reading sees.
    FileError
        A picture cannot be read.
    """

    def __init__(
        self,
        env: Any,
        num_frames: int,
        pixels_key: str = "pixels",
        handmade_4_SAM: Any = None,  # noqa: N803  # the official name
        *,
        segmenter: Segmenter | str | os.PathLike[str] = "tiny",
        threshold: float | None = None,
        lost: Lost = "empty",
    ) -> None:
        check_whole("num_frames", num_frames, 1)
        find_pixels(_observation_spec(env), pixels_key)
        used = load(segmenter) if isinstance(segmenter, (str, os.PathLike)) else segmenter
        check_segmenter(used)
        self._opened = None if used is segmenter else used
        try:
            target = _official_target(used, handmade_4_SAM)
            masked = MaskedPixels(env, used, target, pixels_key=pixels_key, threshold=threshold, lost=lost)
        except BaseException:
            self._close_opened()
            raise
        super().__init__(FrameStack(masked, num_frames, pixels_key))
        self._key = pixels_key

    def observation_spec(self) -> Any:
        """Return the spec of the stack."""
        return self._env.observation_spec()[self._key].replace(name="observation")

    def close(self) -> None:
        """Close the environment, and the segmenter if it was opened here."""
        try:
            super().close()
        finally:
            self._close_opened()

    def _observed(self, time_step: Any) -> Any:
        return time_step._replace(observation=time_step.observation[self._key])

    def _close_opened(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _observation_spec(env: Any) -> Any:
    if not hasattr(env, "observation_spec"):
        raise InputTypeError(f"env must be a dm_env.Environment, not {type(env).__name__}")
    return env.observation_spec()


_PICTURES, _LISTS = ("original_image", "masked_image"), ("extra_points_list", "extra_masked_images_list")


def _official_target(segmenter: Segmenter, config: Any) -> Target:
    """Identify and adapt as the official code does when it starts."""
    there = (name for name in (*_PICTURES, *_LISTS) if hasattr(config, name))
    fields = config if isinstance(config, Mapping) else {name: getattr(config, name) for name in there}
    missing = [name for name in _PICTURES if fields.get(name) is None] + [name for name in _LISTS if name not in fields]
    if missing:
        raise InputError(
            f"handmade_4_SAM must have {', '.join((*_PICTURES, *_LISTS))}, and {type(config).__name__} has no "
            f"{', '.join(missing)}"
        )
    image, masked = (read_image(fields[name]) for name in _PICTURES)
    extra_points, extra_parts = (fields[name] or () for name in _LISTS)  # YAML's empty list may be null
    points: Sequence[tuple[float, ...]] = [tuple(point) for point in extra_points]
    parts = [read_image(path) for path in extra_parts]
    target = segmenter.identify_masked_picture(image, masked, points, parts)
    return segmenter.adapt(target, image, masked[..., 0] > 0)
