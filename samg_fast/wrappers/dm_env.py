"""Masked observations for dm_control's environments, and all others with dm_env's interface."""

from __future__ import annotations

import abc
import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from samg_fast.background import Background
from samg_fast.checks import check_whole, describe
from samg_fast.errors import InputError, InputTypeError, MissingExtraError
from samg_fast.loading import load
from samg_fast.media import read_image
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from samg_fast.wrappers.masking import Lost, Masking, Mode, References, SingleTarget, check_segmenter
from samg_fast.wrappers.pixels import PixelsKey, find_pixels, get_part, put_part
from samg_fast.wrappers.stacking import Stack

try:
    import dm_env
    from dm_env import specs
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.wrappers.dm_env", "dmc") from error

__all__ = ["FrameStack", "FrameStackWithSAMG", "MaskedPixels"]


class _Wrapper(dm_env.Environment):  # type: ignore[misc]  # dm_env has no types
    """Forwards everything to the wrapped environment, attributes and `close` included; subclasses change time steps."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def reset(self) -> Any:
        return self._transform(self._env.reset())

    def step(self, action: Any) -> Any:
        return self._transform(self._env.step(action))

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
        # Copying and pickling look up dunder names, which must not come from the wrapped environment; and a copy has no
        # `_env` yet when they do
        if name == "_env" or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._env, name)

    @abc.abstractmethod
    def _transform(self, time_step: Any) -> Any:
        """Return the time step with its observation changed."""


class MaskedPixels(SingleTarget, _Wrapper):
    """Masks an environment's pixel observations, so that they show the target alone.

    Every observation of the wrapped environment is segmented. Put this wrapper outside an action repeat, so that
    skipped frames are not segmented, and inside a frame stack. Rewards, discounts, step types and all other
    observations are unchanged. `segmenter` is not closed with the environment, because others may use it.

    Parameters
    ----------
    env : dm_env.Environment
        Its pixel observation is (H, W, 3) uint8 RGB, or (1, H, W, 3) as in ``dm_control.manipulation``.
    segmenter : Segmenter
    target : Target or mapping of str to Target, optional
        What to cut out, made with the segmenter's bundle; or several named objects.
    reference : tuple or mapping of str to tuple, optional
        Instead of a target: the arguments of `Segmenter.identify`, (image, mask), (image, mask, points) or
        (image, mask, points, parts); or those of several objects. They are identified at the first reset.
    pixels_key : str, int, sequence of these, or None
        Name of the pixel observation, or index in a tuple; of nested ones a path, such as ``("cameras", "front")``;
        None if it is the whole observation.
    mode : {"composite", "mask", "rgbm", "ids"}
        What replaces it: the masked image, (H, W, 3); the mask alone, (H, W, 1), 0 and 255; the unmasked image with the
        mask as a fourth channel, (H, W, 4); or 1 where the target is and else 0, (H, W, 1). All are uint8. Of N
        objects: the image masked by all together; a mask each, (H, W, N); the image with a mask each, (H, W, 3 + N); or
        the object's number, where several overlap that of the best score.
    threshold : float, optional
        A target whose score is below this counts as lost; by default the bundle says, if it does.
    lost : {"empty", "hold", "frame"}
        Mask to use for a lost target: an empty one; the last mask of the episode, or an empty one if there was none
        yet; or the whole frame, which leaves the image unmasked.
    background : str, path, sequence of 3 int or (H, W, 3) uint8 array, optional
        What the masked image has behind the target: a colour, "noise", "blur", "grey", or pictures and videos, drawn
        anew for every episode; see `samg_fast.background.Background`. Black by default.
    background_seed : int, optional
        Of what is drawn; by default every environment draws otherwise.

    Attributes
    ----------
    segmentation : Segmentation, Objects or None
        Result for the latest frame, with its score; None before the first frame.
    target : Target, dict of str to Target, or None
        None until it is identified.

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid, or the environment has no such pixel observation. `reset` and `step` raise them too if
        an observation does not match its spec.
    BundleError
        The target was made with another bundle.
    """

    def __init__(
        self,
        env: Any,
        segmenter: Segmenter,
        target: Target | Mapping[str, Target] | None = None,
        *,
        reference: References | None = None,
        pixels_key: PixelsKey = "pixels",
        mode: Mode = "composite",
        threshold: float | None = None,
        lost: Lost = "empty",
        background: Background = None,
        background_seed: int | None = None,
    ) -> None:
        super().__init__(env)
        spec = _observation_spec(env)
        self._pixels, of_pixels = find_pixels(spec, pixels_key)
        if self._pixels.images != 1:
            raise InputError(
                f"env must show one picture at a time, (H, W, 3) or (1, H, W, 3), not {self._pixels.shape}"
            )
        self._masking = Masking(
            segmenter, target, reference, count=1, mode=mode, threshold=threshold, lost=lost, background=background
        )
        self._masking.seed(background_seed)
        self._shape = (*self._pixels.shape[:-1], self._masking.channels)
        masked = specs.BoundedArray(self._shape, np.uint8, 0, 255, of_pixels.name)
        self._spec = self._pixels.write(spec, masked)

    def observation_spec(self) -> Any:
        """Return the wrapped environment's spec with the pixels' spec replaced by that of the masked pixels."""
        return self._spec

    def _transform(self, time_step: Any) -> Any:
        if time_step.first():
            self._masking.start_episodes()
        images = self._masking(self._pixels.read(time_step.observation)).reshape(self._shape)
        return time_step._replace(observation=self._pixels.write(time_step.observation, images))


class FrameStack(_Wrapper):
    """Stacks an environment's latest images, channels first; see `samg_fast.envs.stack`.

    Parameters
    ----------
    env : dm_env.Environment
    num_frames : int
        Number of images to stack.
    pixels_key : str, int or sequence of these
        Name, index or path of the images among the observations, as in `MaskedPixels`; (H, W, C) or (1, H, W, C) uint8.
        The others are unchanged.

    Raises
    ------
    InputError
        There are no such images, or they are stacked already; the message says what there is.
    """

    def __init__(self, env: Any, num_frames: int, pixels_key: PixelsKey = "pixels") -> None:
        super().__init__(env)
        observations = _observation_spec(env)
        if pixels_key is None or (isinstance(pixels_key, str) and pixels_key not in _names(observations)):
            there = ", ".join(observations) if isinstance(observations, Mapping) else observations
            raise InputError(f"pixels_key: there is no observation {pixels_key!r}, there are {there}")
        images = get_part(observations, pixels_key)
        name = str(pixels_key if isinstance(pixels_key, (str, int)) else pixels_key[-1])
        self._key, self._stack = pixels_key, Stack(num_frames, name, images)
        self._spec = put_part(observations, pixels_key, specs.BoundedArray(self._stack.shape, np.uint8, 0, 255, name))

    def observation_spec(self) -> Any:
        """Return the wrapped environment's specs with the images' spec replaced by that of the stack."""
        return self._spec

    def _transform(self, time_step: Any) -> Any:
        observation = time_step.observation
        stacked = self._stack(get_part(observation, self._key), first=time_step.first())
        return time_step._replace(observation=put_part(observation, self._key, stacked))


class FrameStackWithSAMG(_Wrapper):
    """The official code's ``FrameStackWrapperWithSAM``: masked frames, channels first, the latest ones stacked.

    The observation is one (3 * num_frames, H, W) uint8 array, oldest frame first; at the start of an episode its first
    frame fills the stack. The constructor identifies the target from masked images, reading them as the official code
    does, and learns its mask weights from them (`Segmenter.adapt`).

    Parameters
    ----------
    env : dm_env.Environment
        As in `MaskedPixels`.
    num_frames : int
        Number of frames to stack.
    pixels_key : str, int or sequence of these
        Name, index or path of the pixel observation, as in `MaskedPixels`.
    handmade_4_SAM : config
        An object with these attributes, or a mapping with these keys: ``original_image`` and ``masked_image``, files of
        an image and of the same image, black outside the target; ``extra_points_list``, points (x, y) on the target in
        pixels; and ``extra_masked_images_list``, files of masked images of its parts. The lists may be None.
    segmenter : Segmenter or str
        A segmenter, or the name or folder of a bundle, which is opened here and closed with the environment.
    threshold, lost, background, background_seed
        As in `MaskedPixels`.

    Attributes
    ----------
    segmentation : Segmentation or None
    target : Target

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid, the environment has no such pixel observation, or a masked image is empty when read as
        the official code reads it.
    FileError
        An image cannot be read.
    """

    def __init__(
        self,
        env: Any,
        num_frames: int,
        pixels_key: PixelsKey = "pixels",
        handmade_4_SAM: Any = None,  # noqa: N803  # the official name
        *,
        segmenter: Segmenter | str | os.PathLike[str] = "tiny",
        threshold: float | None = None,
        lost: Lost = "empty",
        background: Background = None,
        background_seed: int | None = None,
    ) -> None:
        check_whole("num_frames", num_frames, 1)
        find_pixels(_observation_spec(env), pixels_key)
        used = load(segmenter) if isinstance(segmenter, (str, os.PathLike)) else segmenter
        check_segmenter(used)
        self._opened = None if used is segmenter else used
        try:
            target = _official_target(used, handmade_4_SAM)
            masked = MaskedPixels(
                env, used, target, pixels_key=pixels_key, threshold=threshold, lost=lost, background=background,
                background_seed=background_seed,
            )  # fmt: skip
        except BaseException:
            self._close_opened()
            raise
        super().__init__(FrameStack(masked, num_frames, pixels_key))
        self._key = pixels_key

    def observation_spec(self) -> Any:
        """Return the spec of the stack."""
        return get_part(self._env.observation_spec(), self._key).replace(name="observation")

    def close(self) -> None:
        """Close the environment, and the segmenter if it was opened here."""
        try:
            super().close()
        finally:
            self._close_opened()

    def _transform(self, time_step: Any) -> Any:
        return time_step._replace(observation=get_part(time_step.observation, self._key))

    def __deepcopy__(self, memo: dict[int, Any]) -> FrameStackWithSAMG:
        self._opened = None  # the copy has the same segmenter: it ends with the last that has it
        memo[id(self)] = copied = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _close_opened(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _names(observations: Any) -> Mapping[str, Any]:
    return observations if isinstance(observations, Mapping) else {}


def _observation_spec(env: Any) -> Any:
    if not hasattr(env, "observation_spec"):
        raise InputTypeError(f"env must be a dm_env.Environment, not {type(env).__name__}")
    return env.observation_spec()


_IMAGES, _LISTS = ("original_image", "masked_image"), ("extra_points_list", "extra_masked_images_list")


def _official_target(segmenter: Segmenter, config: Any) -> Target:
    """Identify and adapt a target as the official code does at start-up."""
    present = (name for name in (*_IMAGES, *_LISTS) if hasattr(config, name))
    fields = config if isinstance(config, Mapping) else {name: getattr(config, name) for name in present}
    missing = [name for name in _IMAGES if fields.get(name) is None] + [name for name in _LISTS if name not in fields]
    if missing:
        raise InputError(
            f"handmade_4_SAM must have {', '.join((*_IMAGES, *_LISTS))}, and {type(config).__name__} has no "
            f"{', '.join(missing)}"
        )
    image, masked = (read_image(fields[name]) for name in _IMAGES)
    extra_points, extra_parts = (() if fields[name] is None else fields[name] for name in _LISTS)  # YAML's may be null
    for name, given in zip(_LISTS, (extra_points, extra_parts), strict=True):
        if isinstance(given, (str, os.PathLike)) or not isinstance(given, Iterable):
            raise InputTypeError(f"{name} must be a list, not {describe(given)}")
    # Lists of a configuration's own kind become plain ones; what is no point, the segmenter says
    points = [list(each) if isinstance(each, Sequence) else each for each in extra_points]
    parts = [read_image(path) for path in extra_parts]
    target = segmenter.identify_masked_picture(image, masked, points, parts)
    return segmenter.adapt(target, image, masked[..., 0] > 0)
