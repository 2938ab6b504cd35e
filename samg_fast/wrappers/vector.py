"""Masked observations for gymnasium's vector environments: the frames of all are segmented together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.errors import InputError, InputTypeError, MissingExtraError
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from samg_fast.wrappers.masking import CHANNELS, Lost, Masking, Mode, Reference
from samg_fast.wrappers.pixels import Pixels, find_pixels

try:
    from gymnasium.spaces import Box
    from gymnasium.vector import VectorEnv, VectorWrapper
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.wrappers.vector", "gymnasium") from error

__all__ = ["MaskedObservation"]


class MaskedObservation(VectorWrapper):  # no type arguments: gymnasium before 1.4 has none here
    """A vector environment whose pictures show the target alone, or each its own target.

    All of gymnasium's autoreset modes are understood, and no mask is held beyond its episode. Where an environment
    starts anew in the step that ends it, the picture in ``info["final_obs"]`` is masked too. Else infos, rewards,
    terminations, truncations, all other observations and `render` are passed on untouched; `segmenter` is not closed
    with the environments, as others may use it.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
        The observation space of each environment is a Box of (H, W, 3) uint8 RGB, or a Dict with such a Box.
    segmenter : Segmenter
    target : Target or sequence of Target, optional
        What to cut out, made with the segmenter's bundle: one for all environments, or one for each.
    reference : tuple, optional
        In place of a target, the arguments of `Segmenter.identify`: (image, mask), or with points and parts. The
        target, of all environments, is identified at the first reset.
    pixels_key : str, optional
        Name of the pictures in a Dict.
    mode : {"composite", "mask", "rgbm"}
        What stands in their place, as in `samg_fast.wrappers.gymnasium.MaskedObservation`.
    threshold : float, optional
        A target found with a score below is lost; by default it never is.
    lost : {"empty", "hold", "frame"}
        What stands for the mask of a lost target, as in `samg_fast.wrappers.gymnasium.MaskedObservation`.

    Attributes
    ----------
    segmentations : list of Segmentation
        What the segmenter said of the latest frame of each environment; empty before the first.
    targets : list of Target
        Of each environment; empty before they are identified.

    Raises
    ------
    InputError, InputTypeError
        An argument is not one of the above, there is another number of targets, or the environments have no such
        pictures. From `reset` and `step` too, where an observation is not what its space says.
    BundleError
        A target was made with another bundle.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        segmenter: Segmenter,
        target: Target | Sequence[Target] | None = None,
        *,
        reference: Reference | None = None,
        pixels_key: str | None = None,
        mode: Mode = "composite",
        threshold: float | None = None,
        lost: Lost = "empty",
    ) -> None:
        if not isinstance(env, VectorEnv):
            raise InputTypeError(f"env must be a gymnasium.vector.VectorEnv, not {type(env).__name__}")
        single, _ = find_pixels(env.single_observation_space, pixels_key)
        if len(single.shape) != 3:
            raise InputError(f"env must show one picture of each environment, (H, W, 3), not {single.shape}")
        masking = Masking(segmenter, target, reference, count=env.num_envs, mode=mode, threshold=threshold, lost=lost)
        # Not before all is well: gymnasium 1.1 closes the environments with a wrapper that nobody got
        super().__init__(env)
        self._single, self._masking = single, masking
        self._pixels = Pixels(pixels_key, (env.num_envs, *single.shape))
        shape = (*single.shape[:2], CHANNELS[mode])
        self.single_observation_space = single.write(env.single_observation_space, Box(0, 255, shape, np.uint8))
        self.observation_space = self._pixels.write(
            env.observation_space, Box(0, 255, (env.num_envs, *shape), np.uint8)
        )
        self._ended = np.zeros(env.num_envs, np.bool_)

    @property
    def segmentations(self) -> list[Segmentation]:
        """What the segmenter said of the latest frame of each environment; empty before the first."""
        return self._masking.found

    @property
    def targets(self) -> list[Target]:
        """What is cut out in each environment; empty before it is identified."""
        return self._masking.targets

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes, as the environments inside do, of all or of those that ``options["reset_mask"]`` says."""
        self._note(options)
        return self._began(*self.env.reset(seed=seed, options=options))  # type: ignore[arg-type]  # takes a list too

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment, as those inside do; their pictures are masked together."""
        return self._stepped(*self.env.step(actions))

    def reset_async(self, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None) -> None:
        """Tell the processes of an AsyncVectorEnv to reset; `reset_wait` returns what comes of it."""
        self._note(options)
        self.env.reset_async(seed=seed, options=options)  # type: ignore[attr-defined]  # only AsyncVectorEnv has it

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Wait for what `reset_async` began, and mask the pictures."""
        return self._began(*self.env.reset_wait(timeout=timeout))  # type: ignore[attr-defined]

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Wait for what an AsyncVectorEnv's ``step_async`` began, and mask the pictures."""
        return self._stepped(*self.env.step_wait(timeout=timeout))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":  # gymnasium's wrappers hide what is private
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        inside = self.env
        while isinstance(inside, VectorWrapper) and not hasattr(inside, name):
            inside = inside.env
        return getattr(inside, name)

    def _note(self, options: dict[str, Any] | None) -> None:
        """Note who is to start anew, as the environments take that out of the options."""
        chosen = (options or {}).get("reset_mask")
        self._resets = np.ones_like(self._ended) if chosen is None else chosen

    def _began(self, observations: Any, infos: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._begin(self._resets)
        self._ended &= ~self._resets
        return self._masked(observations), infos

    def _stepped(
        self, observations: Any, rewards: Any, terminations: Any, truncations: Any, infos: dict[str, Any]
    ) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        # Whoever ended with the step before starts anew with this one
        self._begin(self._ended)
        self._ended = np.logical_or(terminations, truncations)
        if "final_obs" in infos:
            infos = {**infos, "final_obs": self._masked_finals(infos["final_obs"])}
            restarted = infos["_final_obs"]
            self._begin(restarted)
            self._ended &= ~restarted
        return self._masked(observations), rewards, terminations, truncations, infos

    def _begin(self, which: NDArray[np.bool_]) -> None:
        self._masking.begin(np.flatnonzero(which).tolist())

    def _masked(self, observations: Any) -> Any:
        return self._pixels.write(observations, self._masking(self._pixels.read(observations)))

    def _masked_finals(self, finals: NDArray[np.object_]) -> NDArray[np.object_]:
        """Mask the last observations of episodes, one by one: batches of their own would be compiled for."""
        masked = finals.copy()
        for index, observation in enumerate(finals):
            if observation is not None:
                picture = self._masking.alone(self._single.read(observation)[0], index)
                masked[index] = self._single.write(observation, picture)
        return masked
