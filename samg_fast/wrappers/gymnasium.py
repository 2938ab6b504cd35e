"""Masked observations for gymnasium's environments."""

from __future__ import annotations

from typing import Any

import numpy as np

from samg_fast.errors import InputError, InputTypeError, MissingExtraError
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from samg_fast.wrappers.masking import CHANNELS, Lost, Masking, Mode, Reference
from samg_fast.wrappers.pixels import find_pixels
from samg_fast.wrappers.stacking import Stack

try:
    import gymnasium
    from gymnasium.utils import RecordConstructorArgs
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.wrappers.gymnasium", "gymnasium") from error

__all__ = ["FrameStack", "MaskedObservation"]


class _Wrapper(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """An environment that is another one in all that is not said otherwise, attributes included."""

    _ended = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, as the environment inside does."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._ended = False
        return self._observed(observation, first=True), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, as the environment inside does."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        first = self._ended  # the environment inside starts anew by itself
        self._ended = bool(terminated or truncated)
        return self._observed(observation, first=first), reward, terminated, truncated, info

    def set_wrapper_attr(self, name: str, value: Any, *, force: bool = True) -> bool:
        """Set an attribute where it is: here, or in the environment inside."""
        own = name in vars(self) or hasattr(type(self), name)
        if not own and self.env.set_wrapper_attr(name, value, force=False):
            return True
        return super().set_wrapper_attr(name, value, force=force)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":  # gymnasium's wrappers hide what is private
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self.env.get_wrapper_attr(name)

    def _observed(self, observation: Any, *, first: bool) -> Any:
        """Return another observation; `first` says whether it begins an episode."""
        raise NotImplementedError


class MaskedObservation(_Wrapper):
    """An environment whose pictures show the target alone.

    One frame is segmented for every observation of the environment inside. So this belongs outside an action repeat or
    a frame skip, whose frames in between nobody sees, and inside a frame stack. Rewards, terminations, truncations,
    infos, all other observations and `render` are passed on untouched; `segmenter` is not closed with the environment,
    as others may use it.

    Parameters
    ----------
    env : gymnasium.Env
        Its observation space is a Box of (H, W, 3) uint8 RGB, or a Dict with such a Box.
    segmenter : Segmenter
    target : Target, optional
        What to cut out, made with the segmenter's bundle.
    reference : tuple, optional
        In place of a target, the arguments of `Segmenter.identify`: (image, mask), or with points and parts. The
        target is identified at the first reset.
    pixels_key : str, optional
        Name of the pictures in a Dict.
    mode : {"composite", "mask", "rgbm"}
        What stands in their place: the masked picture, (H, W, 3); the mask alone, (H, W, 1), 0 and 255; or the picture
        as it is with the mask as a fourth channel, (H, W, 4). All are uint8.
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
        An argument is not one of the above, or the environment has no such pictures. From `reset` and `step` too, where
        an observation is not what its space says.
    BundleError
        The target was made with another bundle.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        segmenter: Segmenter,
        target: Target | None = None,
        *,
        reference: Reference | None = None,
        pixels_key: str | None = None,
        mode: Mode = "composite",
        threshold: float | None = None,
        lost: Lost = "empty",
    ) -> None:
        if not isinstance(env, gymnasium.Env):
            raise InputTypeError(f"env must be a gymnasium.Env, not {type(env).__name__}")
        # All checks come before the environment is this one's: what fails leaves it as it was
        pixels, _ = find_pixels(env.observation_space, pixels_key)
        if len(pixels.shape) != 3:
            raise InputError(f"env must show one picture at a time, (H, W, 3), not {pixels.shape}")
        masking = Masking(segmenter, target, reference, count=1, mode=mode, threshold=threshold, lost=lost)
        super().__init__(env)
        self._pixels, self._masking = pixels, masking
        self._saved_kwargs = _Shared(
            segmenter=segmenter,
            target=target,
            reference=reference,
            pixels_key=pixels_key,
            mode=mode,
            threshold=threshold,
            lost=lost,
        )
        box = gymnasium.spaces.Box(0, 255, (*pixels.shape[:2], CHANNELS[mode]), np.uint8)
        self.observation_space = pixels.write(env.observation_space, box)

    @property
    def segmentation(self) -> Segmentation | None:
        """What the segmenter said of the latest frame; None before the first."""
        return self._masking.found[0] if self._masking.found else None

    @property
    def target(self) -> Target | None:
        """What is cut out; None before it is identified."""
        return self._masking.targets[0] if self._masking.targets else None

    def _observed(self, observation: Any, *, first: bool) -> Any:
        if first:
            self._masking.begin()
        return self._pixels.write(observation, self._masking(self._pixels.read(observation))[0])


class FrameStack(_Wrapper):
    """An environment whose pictures are the latest few together, channels first; see `samg_fast.envs.stack`.

    Parameters
    ----------
    env : gymnasium.Env
        Its observations are (H, W, C) uint8 pictures.
    num_frames : int
        How many.

    Raises
    ------
    InputError
        They are not, or are stacked already; says what they are.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], num_frames: int) -> None:
        self._stack = Stack(num_frames, "its observations", env.observation_space)
        super().__init__(env)
        self._saved_kwargs = {"num_frames": num_frames}
        self.observation_space = gymnasium.spaces.Box(0, 255, self._stack.shape, np.uint8)

    def _observed(self, observation: Any, *, first: bool) -> Any:
        return self._stack(observation, first=first)


class _Shared(dict[str, Any]):
    """Arguments to make a wrapper again, for gymnasium's spec; copies of it share them, as a segmenter has no copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self
