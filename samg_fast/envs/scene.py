"""A running task in any of the five settings, with ground truth: what every kind of environment is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.checks import check_whole
from samg_fast.envs.backgrounds import open_clips, procedural_clip
from samg_fast.envs.painting import SceneColors
from samg_fast.envs.policy import check_action
from samg_fast.envs.rendering import Rendered, SceneRenderer
from samg_fast.envs.settings import (
    Colors,
    Palette,
    check_setting,
    composite,
    is_color,
    is_video,
    open_colors,
    random_colors,
)
from samg_fast.envs.simulation import Outcome, Simulation, open_simulation
from samg_fast.envs.tasks import Task, find_task, nearest
from samg_fast.errors import InputError, SamgError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.backgrounds import Clip

__all__ = ["FIRST_PROCEDURAL_SEED", "Scene"]

FIRST_PROCEDURAL_SEED = 1_000_000
"""Procedural backgrounds of the environments have this seed or a higher one; training uses lower ones."""

# Independent random streams of one seed, so that a setting's draws do not change the actions (which have the first).
_CLIPS, _COLORS = 2, 3


class Scene:
    """A task that renders itself, in one setting, with the ground truth of every frame.

    The ground truth is every pixel of a body that moves relative to the world, and of those that `Task.target` names.
    A clip starts at its first picture with every episode, moves on one picture with every step and loops; each episode
    draws its clip, or its colours, anew. The same arguments and actions give the same frames to the pixel.

    Parameters
    ----------
    task : str or Task
        A name such as ``"walker_walk"`` or ``"adroit_pen"``, or a `Task`.
    setting : str
        One of ``samg_fast.envs.SETTINGS``.
    size : int or (int, int)
        Height and width of the frames in pixels, or the one number for both.
    seed : int
        Of everything random here: initial states, clips and colours; 0 to 2**32 - 1.
    clips : path or sequence of Clip, optional
        Backgrounds for the video settings, as `samg_fast.envs.backgrounds.open_clips` takes them; by default every
        episode makes a procedural one.
    colors : path or sequence of Colors, optional
        Colour sets for the colour settings, as `samg_fast.envs.settings.open_colors` takes them; by default every
        episode draws random ones.
    action_repeat : int
        Control steps an `advance` takes with one action.
    camera : int or str, optional
        Index or name of the model's camera to look through; by default the task's own.

    Raises
    ------
    InputError
        An unknown task, setting or camera (the message names the nearest), a bad size, seed or action repeat, no clips
        or colours in what was given.
    InputTypeError
        A size, seed, action repeat or camera that is no whole number; clips or colours of another kind.
    FileError
        A file of colours cannot be read; from `look`, a clip.
    MissingExtraError
        The task's simulation is not installed.
    RenderingError
        Off-screen rendering cannot start; the message says what was tried and which Debian package mends it.

    Notes
    -----
    Threads may take turns where OpenGL is EGL's (``MUJOCO_GL=egl``); elsewhere the context belongs to the thread of the
    first `look`, which must be the one that closes. Nothing is shared: several threads may have scenes of their own.
    """

    def __init__(
        self,
        task: str | Task,
        setting: str = "original",
        size: int | tuple[int, int] = 84,
        seed: int = 0,
        clips: str | PathLike[str] | Sequence[Clip] | None = None,
        colors: str | PathLike[str] | Palette | None = None,
        action_repeat: int = 2,
        camera: int | str | None = None,
    ) -> None:
        known = find_task(task.name if isinstance(task, Task) else task)
        self.task = task if isinstance(task, Task) else known
        self.setting = check_setting(setting)
        self.size = _height_and_width(size)
        _check_seed(seed)
        check_whole("action_repeat", action_repeat, 1)
        self.action_repeat = int(action_repeat)
        self._clips = None if clips is None else open_clips(clips, self.size, setting)
        self._palette = None if colors is None else open_colors(colors, setting)
        self._simulation: Simulation | None = None
        self._renderer: SceneRenderer | None = None
        self._painter: SceneColors | None = None
        self._clip: Clip | None = None
        self._frame: NDArray[np.uint8] | None = None
        self._clean: NDArray[np.uint8] | None = None
        self._rendered: Rendered | None = None
        self._open(seed)
        try:
            self.camera = _camera(self.simulation.model, self.task.camera if camera is None else camera)
        except SamgError:
            self.close()
            raise

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Ground truth of the latest frame, (H, W) bool."""
        return self.rendered.mask

    @property
    def frame(self) -> NDArray[np.uint8]:
        """The latest frame, (H, W, 3) uint8."""
        return self._looked_at(self._frame)

    @property
    def clean(self) -> NDArray[np.uint8]:
        """The latest frame before a clip was laid behind it, (H, W, 3) uint8; the frame itself without a clip."""
        return self._looked_at(self._clean)

    @property
    def rendered(self) -> Rendered:
        """The latest render: picture, body and kind of every pixel."""
        if self._rendered is None:
            # Only where it is asked for: the agents' plain settings do without it.
            clean, renderer = self.clean, self._renderer
            if renderer is None:
                raise SamgError(f"{self.task.name} is closed")
            self._rendered = Rendered(clean, *renderer.truth())
        return self._rendered

    @property
    def simulation(self) -> Simulation:
        """What is rendered, in the form that all simulations share."""
        if self._simulation is None:
            raise SamgError(f"{self.task.name} is closed")
        return self._simulation

    @property
    def environment(self) -> Any:
        """The environment inside: dm_control's ``rl.control.Environment``, or gymnasium-robotics' of an Adroit hand."""
        return self.simulation.environment

    @property
    def clip_name(self) -> str | None:
        """Name of the clip behind this episode; None in settings without video."""
        return self._clip.name if self._clip is not None else None

    def check_action(self, action: ArrayLike) -> NDArray[np.float64]:
        """Return an action as an (n,) float64 array.

        Raises
        ------
        InputError
            It has another shape than the task's, or is not finite.
        """
        return check_action(action, self.simulation.action_spec.shape)

    def reseed(self, seed: int) -> None:
        """Become what this would be had it been made with another seed, or with the same one and not been used."""
        _check_seed(seed)
        if self._simulation is None:
            raise SamgError(f"{self.task.name} is closed")
        if self._used or seed != self.seed:
            self.close()
            self._open(seed)

    def begin(self) -> None:
        """Start an episode without looking."""
        self.simulation.reset()
        self._used, self._time = True, 0
        self._clean = self._rendered = None
        if is_video(self.setting):
            self._clip = self._draw_clip()
        if is_color(self.setting):
            if self._painter is None:
                self._painter = SceneColors(self.simulation.model)
            self._painter.apply(self._draw_colors())
        # quadruped_escape has another terrain in every episode.
        self._stale = is_color(self.setting) or self.simulation.model.nhfield > 0

    def advance(self, action: ArrayLike) -> Outcome:
        """Act, ``action_repeat`` times or until the episode is over, without looking.

        Parameters
        ----------
        action : (n,) array_like
            One number per actuator.

        Returns
        -------
        Outcome
            With the sum of the rewards; everything else is of the last time.

        Raises
        ------
        InputError
            The action has another shape than the task's, or is not finite.
        """
        checked, simulation = self.check_action(action), self.simulation
        reward = 0.0
        for _ in range(self.action_repeat):
            outcome = simulation.step(checked)
            reward += outcome.reward
            if outcome.over:
                break
        self._time += 1
        self._clean = self._rendered = None
        return Outcome(reward, outcome.terminated, outcome.truncated, outcome.info)

    def look(self) -> NDArray[np.uint8]:
        """Render the state and lay the clip behind it: the frame, (H, W, 3) uint8 RGB."""
        self._clean = frame = self._current_renderer().draw(self.simulation.data, self.camera)
        self._rendered = None
        if self._clip is not None:
            frame = composite(self.rendered, self._clip.frame(self._time), self.setting)
        self._frame = frame
        return frame.copy()

    def close(self) -> None:
        """Free the OpenGL context and the simulation; closing twice does nothing."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    def _open(self, seed: int) -> None:
        self.seed = int(seed)
        self._simulation = open_simulation(self.task, self.seed)
        self._clip_random = np.random.default_rng([_CLIPS, self.seed])
        self._color_random = np.random.default_rng([_COLORS, self.seed])
        self._painter = self._clip = self._frame = self._clean = self._rendered = None
        self._time, self._used, self._stale = 0, False, False

    def _looked_at(self, picture: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        if picture is None:
            raise SamgError(f"{self.task.name} has not been looked at yet: call reset() first")
        return picture

    def _current_renderer(self) -> SceneRenderer:
        """Return the renderer, made on the thread that first looks, with the model's present colours and terrain."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.simulation.model, self.size, self.task.floor, self.task.target)
        elif self._stale:
            self._renderer.upload()
        self._stale = False
        return self._renderer

    def _draw_clip(self) -> Clip:
        if self._clips is None:
            seed = FIRST_PROCEDURAL_SEED + int(self._clip_random.integers(2**31))
            return procedural_clip(seed, self.size)
        return self._clips[int(self._clip_random.integers(len(self._clips)))]

    def _draw_colors(self) -> Colors:
        if self._palette is None:
            return random_colors(self.setting, self._color_random)
        return self._palette[int(self._color_random.integers(len(self._palette)))]


def _camera(model: Any, camera: int | str) -> int:
    """Return the index of a camera."""
    if not isinstance(camera, str):
        check_whole("camera", camera, 0, model.ncam - 1)
        return int(camera)
    names = [model.camera(index).name for index in range(model.ncam)]
    if camera not in names:
        raise InputError(f"there is no camera {camera!r}: {nearest(camera, names)}")
    return names.index(camera)


def _check_seed(seed: int) -> None:
    check_whole("seed", seed, 0, 2**32 - 1)


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, tuple) and len(size) != 2:
        raise InputError(f"size must be one number, or height and width, it is {size!r}")
    height, width = size if isinstance(size, tuple) else (size, size)
    for side in (height, width):
        check_whole("size", side, 1)
    return int(height), int(width)
