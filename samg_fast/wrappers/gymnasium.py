"""Masked observations for gymnasium's environments."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from samg_fast.background import Background
from samg_fast.errors import InputError, InputTypeError, MissingExtraError
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from samg_fast.wrappers.masking import Lost, Masking, Mode, References, SingleTarget
from samg_fast.wrappers.pixels import PixelsKey, find_pixels
from samg_fast.wrappers.stacking import Stack

try:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.utils import RecordConstructorArgs
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.wrappers.gymnasium", "gymnasium") from error

__all__ = ["FrameStack", "MaskedObservation"]


class _Wrapper(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs, abc.ABC):
    """Forwards everything to the wrapped environment, attributes included; subclasses change its observations."""

    _ended = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of the wrapped environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._ended = False
        return self._transform(observation, first=True), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step in the wrapped environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        first = self._ended  # the wrapped environment resets itself
        self._ended = bool(terminated or truncated)
        return self._transform(observation, first=first), reward, terminated, truncated, info

    def set_wrapper_attr(self, name: str, value: Any, *, force: bool = True) -> bool:
        """Set an attribute where it exists: on this wrapper, or in the wrapped environment."""
        own = name in vars(self) or hasattr(type(self), name)
        if not own and self.env.set_wrapper_attr(name, value, force=False):
            return True
        return super().set_wrapper_attr(name, value, force=force)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":  # gymnasium's wrappers hide private names
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self.env.get_wrapper_attr(name)

    @abc.abstractmethod
    def _transform(self, observation: Any, *, first: bool) -> Any:
        """Return the changed observation; `first` says whether it starts an episode."""


class MaskedObservation(SingleTarget, _Wrapper):
    """Masks an environment's images, so that they show the target alone.

    Every observation of the wrapped environment is segmented. Put this wrapper outside an action repeat or a frame
    skip, so that skipped frames are not segmented, and inside a frame stack. Rewards, terminations, truncations, infos,
    all other observations and `render` are unchanged. `segmenter` is not closed with the environment, because others
    may use it.

    Parameters
    ----------
    env : gymnasium.Env
        Its observation space is a Box of (H, W, 3) uint8 RGB, or a Dict or Tuple with such a Box, nested as it may be.
    segmenter : Segmenter
    target : Target or mapping of str to Target, optional
        What to cut out, made with the segmenter's bundle; or several named objects.
    reference : tuple or mapping of str to tuple, optional
        Instead of a target: the arguments of `Segmenter.identify`, (image, mask), (image, mask, points) or
        (image, mask, points, parts); or those of several objects. They are identified at the first reset.
    pixels_key : str, int or sequence of these, optional
        Name of the images in a Dict, or index in a Tuple; of nested ones a path, such as ``("cameras", "front")``.
    mode : {"composite", "mask", "rgbm", "ids"}
        What replaces them: the masked image, (H, W, 3); the mask alone, (H, W, 1), 0 and 255; the unmasked image with
        the mask as a fourth channel, (H, W, 4); or 1 where the target is and else 0, (H, W, 1). All are uint8. Of N
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

    Attributes
    ----------
    segmentation : Segmentation, Objects or None
        Result for the latest frame, with its score; None before the first frame.
    target : Target, dict of str to Target, or None
        None until it is identified.

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid, or the environment has no such images. `reset` and `step` raise them too if an
        observation does not match its space.
    BundleError
        The target was made with another bundle.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        segmenter: Segmenter,
        target: Target | Mapping[str, Target] | None = None,
        *,
        reference: References | None = None,
        pixels_key: PixelsKey = None,
        mode: Mode = "composite",
        threshold: float | None = None,
        lost: Lost = "empty",
        background: Background = None,
    ) -> None:
        if not isinstance(env, gymnasium.Env):
            raise InputTypeError(f"env must be a gymnasium.Env, not {type(env).__name__}")
        # All checks come before the environment is wrapped, so that an error leaves it unchanged
        pixels, _ = find_pixels(env.observation_space, pixels_key)
        if len(pixels.shape) != 3:
            raise InputError(f"env must show one picture at a time, (H, W, 3), not {pixels.shape}")
        masking = Masking(
            segmenter, target, reference, count=1, mode=mode, threshold=threshold, lost=lost, background=background
        )
        super().__init__(env)
        self._pixels, self._masking = pixels, masking
        self._saved_kwargs = _SharedArguments(
            segmenter=segmenter,
            target=target,
            reference=reference,
            pixels_key=pixels_key,
            mode=mode,
            threshold=threshold,
            lost=lost,
            background=background,
        )
        box = gymnasium.spaces.Box(0, 255, (*pixels.shape[:2], masking.channels), np.uint8)
        self.observation_space = pixels.write(env.observation_space, box)

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # gymnasium's own is a property too
        """What `gymnasium.make` builds the environment from again; None where it was not made by its name.

        Its ``to_json`` raises `InputTypeError`, as networks and targets are no JSON; it can be pickled.
        """
        spec = super().spec
        if spec is not None:
            spec.__class__ = _MaskedSpec
        return spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of the wrapped environment; the seed is that of the backgrounds too."""
        self._masking.seed(seed)
        return super().reset(seed=seed, options=options)

    def _transform(self, observation: Any, *, first: bool) -> Any:
        if first:
            self._masking.start_episodes()
        return self._pixels.write(observation, self._masking(self._pixels.read(observation))[0])


class FrameStack(_Wrapper):
    """Stacks an environment's latest images, channels first; see `samg_fast.envs.stack`.

    Parameters
    ----------
    env : gymnasium.Env
        Its observations are (H, W, C) uint8 images.
    num_frames : int
        Number of images to stack.

    Raises
    ------
    InputError
        The observations are not such images, or are stacked already; the message says what they are.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], num_frames: int) -> None:
        self._stack = Stack(num_frames, "its observations", env.observation_space)
        super().__init__(env)
        self._saved_kwargs = {"num_frames": num_frames}
        self.observation_space = gymnasium.spaces.Box(0, 255, self._stack.shape, np.uint8)

    def _transform(self, observation: Any, *, first: bool) -> Any:
        return self._stack(observation, first=first)


class _MaskedSpec(EnvSpec):
    """The spec of a masked environment, whatever it is wrapped in."""

    def to_json(self) -> str:
        raise InputTypeError(
            "the spec of a masked environment cannot be JSON, as its segmenter and its target cannot: pickle it, or "
            "write the spec of the environment inside, and wrap that environment again"
        )


class _SharedArguments(dict[str, Any]):
    """A wrapper's constructor arguments for gymnasium's spec; deep copies share them, as networks may be large."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _SharedArguments:
        return self
