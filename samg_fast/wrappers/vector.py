"""Masked observations for gymnasium's vector environments, whose frames are segmented as one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.background import Background
from samg_fast.errors import InputError, InputTypeError, MissingExtraError
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from samg_fast.wrappers.masking import Found, Lost, Masking, Mode, References, Targets
from samg_fast.wrappers.pixels import Pixels, PixelsKey, find_pixels

try:
    from gymnasium.spaces import Box
    from gymnasium.vector import VectorEnv, VectorWrapper
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.wrappers.vector", "gymnasium") from error

__all__ = ["MaskedObservation"]


class MaskedObservation(VectorWrapper):  # no type arguments: gymnasium before 1.4 has none here
    """Masks a vector environment's images, so that they show one target, or each environment its own.

    All of gymnasium's autoreset modes are supported, and no mask is held beyond its episode. If an environment resets
    in the same step that ends its episode, the image in ``infos["final_obs"]`` is masked too. That may be an array of
    objects, one observation or None for each environment; or one batch of observations, which gets black images where
    ``infos["_final_obs"]`` is not set or, without that, where no episode ended. All other infos, rewards, terminations,
    truncations, other observations and `render` are unchanged. `segmenter` is not closed with the environments, because
    others may use it.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
        The observation space of each environment is a Box of (H, W, 3) uint8 RGB, or a Dict or Tuple with such a Box,
        nested as it may be.
    segmenter : Segmenter
    target : Target, sequence of Target or mapping of str to Target, optional
        What to cut out, made with the segmenter's bundle: one for all environments, one per environment, or several
        named objects in each.
    reference : tuple or mapping of str to tuple, optional
        Instead of a target: the arguments of `Segmenter.identify`, (image, mask), (image, mask, points) or
        (image, mask, points, parts); or those of several objects. They are identified at the first reset, once for all
        environments.
    pixels_key : str, int or sequence of these, optional
        Name, index or path of the images, as in `samg_fast.wrappers.gymnasium.MaskedObservation`.
    mode : {"composite", "mask", "rgbm", "ids"}
        What replaces them, as in `samg_fast.wrappers.gymnasium.MaskedObservation`.
    threshold : float, optional
        A target whose score is below this counts as lost; by default the bundle says, if it does.
    lost : {"empty", "hold", "frame"}
        Mask to use for a lost target, as in `samg_fast.wrappers.gymnasium.MaskedObservation`.
    background : optional
        What the masked images have behind the target, as in `samg_fast.wrappers.gymnasium.MaskedObservation`; each
        environment has its own.

    Attributes
    ----------
    segmentations : list of Segmentation or of Objects
        Result for the latest frame of each environment; empty before the first frame.
    targets : list of Target or of dict of str to Target
        What is cut out in each environment; empty until it is identified.

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid, the number of targets does not match, or the environments have no such images. `reset`
        and `step` raise them too if an observation does not match its space.
    BundleError
        A target was made with another bundle.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        segmenter: Segmenter,
        target: Targets | None = None,
        *,
        reference: References | None = None,
        pixels_key: PixelsKey = None,
        mode: Mode = "composite",
        threshold: float | None = None,
        lost: Lost = "empty",
        background: Background = None,
    ) -> None:
        if not isinstance(env, VectorEnv):
            raise InputTypeError(f"env must be a gymnasium.vector.VectorEnv, not {type(env).__name__}")
        single, _ = find_pixels(env.single_observation_space, pixels_key)
        if len(single.shape) != 3:
            raise InputError(f"env must show one picture of each environment, (H, W, 3), not {single.shape}")
        masking = Masking(
            segmenter, target, reference,
            count=env.num_envs, mode=mode, threshold=threshold, lost=lost, background=background,
        )  # fmt: skip
        # All checks come before: a wrapper whose constructor fails is deleted, and in gymnasium 1.1 that closes `env`
        super().__init__(env)
        self._single, self._masking = single, masking
        self._pixels = Pixels(pixels_key, (env.num_envs, *single.shape))
        self._masked_shape = shape = (*single.shape[:2], masking.channels)
        self.single_observation_space = single.write(env.single_observation_space, Box(0, 255, shape, np.uint8))
        self.observation_space = self._pixels.write(
            env.observation_space, Box(0, 255, (env.num_envs, *shape), np.uint8)
        )
        self._ended = np.zeros(env.num_envs, np.bool_)

    @property
    def segmentations(self) -> list[Found]:
        """Result for the latest frame of each environment; empty before the first frame."""
        return self._masking.segmentations

    @property
    def targets(self) -> list[Target | dict[str, Target]]:
        """What is cut out in each environment; empty until it is identified."""
        return self._masking.targets

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all environments, or in those that ``options["reset_mask"]`` selects."""
        self._note_resets(options)
        self._masking.seed(seed)
        return self._after_reset(*self.env.reset(seed=seed, options=options))  # type: ignore[arg-type]  # takes a list too

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment, and mask their images as one batch."""
        return self._after_step(*self.env.step(actions))

    def reset_async(self, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None) -> None:
        """Tell the processes of an AsyncVectorEnv to reset; `reset_wait` returns the result."""
        self._note_resets(options)
        self._masking.seed(seed)
        self.env.reset_async(seed=seed, options=options)  # type: ignore[attr-defined]  # only AsyncVectorEnv has it

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Wait for the reset that `reset_async` started, and mask the images."""
        return self._after_reset(*self.env.reset_wait(timeout=timeout))  # type: ignore[attr-defined]

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Wait for the step that an AsyncVectorEnv's ``step_async`` started, and mask the images."""
        return self._after_step(*self.env.step_wait(timeout=timeout))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":  # gymnasium's wrappers hide private names
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        wrapped = self.env
        while isinstance(wrapped, VectorWrapper) and not hasattr(wrapped, name):
            wrapped = wrapped.env
        return getattr(wrapped, name)

    def _note_resets(self, options: dict[str, Any] | None) -> None:
        """Remember which environments will reset, before the environments take that out of the options."""
        selected = (options or {}).get("reset_mask")
        self._resets = np.ones_like(self._ended) if selected is None else selected

    def _after_reset(self, observations: Any, infos: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._start_episodes(self._resets)
        self._ended &= ~self._resets
        return self._masked(observations), infos

    def _after_step(
        self, observations: Any, rewards: Any, terminations: Any, truncations: Any, infos: dict[str, Any]
    ) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        # Environments whose episode ended with the last step start a new one with this step
        self._start_episodes(self._ended)
        self._ended = np.logical_or(terminations, truncations)
        if "final_obs" in infos:
            final, restarted = self._mask_final(infos["final_obs"], infos.get("_final_obs"))
            infos = {**infos, "final_obs": final}
            self._start_episodes(restarted)
            self._ended &= ~restarted
        return self._masked(observations), rewards, terminations, truncations, infos

    def _start_episodes(self, which: NDArray[np.bool_]) -> None:
        self._masking.start_episodes(np.flatnonzero(which).tolist())

    def _masked(self, observations: Any) -> Any:
        return self._pixels.write(observations, self._masking(self._pixels.read(observations)))

    def _mask_final(self, final: Any, which: Any) -> tuple[Any, NDArray[np.bool_]]:
        """Mask the last observations of episodes, and say in which environments these are.

        One by one, as each other batch size would need its own compilation.
        """
        count, name = self.env.num_envs, 'infos["final_obs"]'
        given = None if which is None else np.asarray(which, np.bool_)
        if given is not None and given.shape != (count,):
            raise InputError(f'infos["_final_obs"] must be {count} truth values, not of shape {given.shape}')
        if isinstance(final, list):
            final, listed = np.empty(len(final), np.object_), final
            final[:] = listed
        if not isinstance(final, np.ndarray) or final.dtype != np.object_:
            ended = self._ended if given is None else given
            frames = self._pixels.read(final, name)
            images = np.zeros((count, *self._masked_shape), np.uint8)
            for index in np.flatnonzero(ended).tolist():
                images[index] = self._masking.mask_one(frames[index], index)
            return self._pixels.write(final, images), ended
        if final.shape != (count,):
            raise InputError(f"{name} must hold {count} observations, not be of shape {final.shape}")
        there = np.array([observation is not None for observation in final])
        masked = final.copy()
        for index in np.flatnonzero(there).tolist():
            image = self._masking.mask_one(self._single.read(final[index], f"{name}[{index}]")[0], index)
            masked[index] = self._single.write(final[index], image)
        return masked, there if given is None else given
