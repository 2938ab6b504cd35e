"""A running task in any of the five settings, with ground truth; every kind of environment is built on it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

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
"""Lowest seed of the environments' procedural backgrounds; training of the bundle uses lower ones."""

# Random streams within a seed, so that a setting's draws do not change the actions, which use stream 1.
_CLIP_STREAM, _COLOR_STREAM = 2, 3


class Scene:
    """A task in one setting that renders itself, with the ground truth of every frame.

    The ground truth mask covers every body that moves relative to the world, and the bodies that `Task.target` names.
    Each episode draws a new clip or new colours. A clip starts at its first image in every episode, advances one image
    per step, and loops. The same arguments and actions give the same frames to the pixel.

    Parameters
    ----------
    task : str or Task
        A name such as ``"walker_walk"`` or ``"adroit_pen"``, or a `Task`.
    setting : str
        One of ``samg_fast.envs.SETTINGS``.
    size : int or (int, int)
        Height and width of the frames in pixels, or one number for both.
    seed : int or None
        Seed of initial states, clips and colours, 0 or more; None draws a new one.
    clips : path or sequence of Clip, optional
        Backgrounds for the video settings, as `samg_fast.envs.backgrounds.open_clips` takes them; by default every
        episode has a new procedural one.
    colors : path or sequence of Colors, optional
        Colour sets for the colour settings, as `samg_fast.envs.settings.open_colors` takes them; by default every
        episode draws random ones.
    action_repeat : int
        Control steps that `advance` takes with one action.
    camera : int or str, optional
        Index or name of the model's camera to render; by default the task's own.

    Raises
    ------
    InputError
        A task, setting or camera is unknown (the message suggests similar names); a size, seed or action repeat is out
        of range; there are no clips or colours in what was given.
    InputTypeError
        A size, seed, action repeat or camera is not a whole number, or clips or colours have the wrong type.
    FileError
        A colour file cannot be read. `look` raises it if a clip cannot be decoded.
    MissingExtraError
        The task's simulation is not installed.
    RenderingError
        Off-screen rendering cannot start; the message says what was tried and which Debian packages to install.

    Attributes
    ----------
    seed : int
        The seed, also where it was drawn.

    Notes
    -----
    A scene can be copied by `copy.deepcopy` and pickled, in the middle of an episode too: the copy goes on as the scene
    would, has an OpenGL context of its own, and shares nothing with it but the clips and colours it was given.

    With EGL (``MUJOCO_GL=egl``) threads may take turns with a scene. Otherwise its context is bound to the thread of
    the first `look`, which must also close it. Scenes share nothing: several threads may each have their own.
    """

    _max_seed: ClassVar[int | None] = None

    def __init__(
        self,
        task: str | Task,
        setting: str = "original",
        size: int | tuple[int, int] = 84,
        seed: int | None = 0,
        clips: str | PathLike[str] | Sequence[Clip] | None = None,
        colors: str | PathLike[str] | Palette | None = None,
        action_repeat: int = 2,
        camera: int | str | None = None,
    ) -> None:
        known = find_task(task.name if isinstance(task, Task) else task)
        self.task = task if isinstance(task, Task) else known
        self.setting = check_setting(setting)
        self.size = _height_and_width(size)
        seed = self._checked_seed(seed)
        check_whole("action_repeat", action_repeat, 1)
        self.action_repeat = int(action_repeat)
        self._clips = None if clips is None else open_clips(clips, self.size, setting)
        self._palette = None if colors is None else open_colors(colors, setting)
        self._simulation: Simulation | None = None
        self._renderer: SceneRenderer | None = None
        self._painter: SceneColors | None = None
        self._clip: Clip | None = None
        self._drawn: int | None = None  # which clip it is
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
        """Ground truth mask of the latest frame, (H, W) bool."""
        return self.rendered.mask

    @property
    def frame(self) -> NDArray[np.uint8]:
        """The latest frame, (H, W, 3) uint8."""
        return self._require(self._frame)

    @property
    def clean(self) -> NDArray[np.uint8]:
        """The latest frame without its clip, (H, W, 3) uint8; the frame itself in settings without video."""
        return self._require(self._clean)

    @property
    def rendered(self) -> Rendered:
        """The latest render: colour, body and kind of every pixel."""
        if self._rendered is None:
            # Rendered on demand: settings without video do not need the ground truth.
            clean, simulation = self.clean, self.simulation
            if self._renderer is None:  # of a copy, which has not drawn this state itself
                self._current_renderer().draw(simulation.data, self.camera)
            self._rendered = Rendered(clean, *self._current_renderer().truth())
        return self._rendered

    @property
    def simulation(self) -> Simulation:
        """The running simulation."""
        if self._simulation is None:
            raise SamgError(f"{self.task.name} is closed")
        return self._simulation

    @property
    def environment(self) -> Any:
        """The simulation's own environment: dm_control's ``rl.control.Environment``, or gymnasium-robotics'."""
        return self.simulation.environment

    @property
    def clip_name(self) -> str | None:
        """Name of this episode's clip; None in settings without video."""
        return self._clip.name if self._clip is not None else None

    def check_action(self, action: ArrayLike) -> NDArray[np.float64]:
        """Return an action as an (n,) float64 array.

        Raises
        ------
        InputError
            It does not have the task's shape, or is not finite.
        """
        return check_action(action, self.simulation.action_spec.shape)

    def reseed(self, seed: int) -> None:
        """Return to the state of a new scene with this seed."""
        seed = self._checked_seed(seed)
        if self._simulation is None:
            raise SamgError(f"{self.task.name} is closed")
        if self._started or seed != self.seed:
            self.close()
            self._open(seed)

    def begin(self) -> dict[str, Any]:
        """Start an episode without rendering; return what there is to say of its first state, as `Outcome.info`."""
        info = self.simulation.reset()
        self._started, self._time = True, 0
        self._clean = self._rendered = None
        if is_video(self.setting):
            self._drawn = self._draw_clip()
            self._clip = self._open_clip(self._drawn)
        if is_color(self.setting):
            if self._painter is None:
                self._painter = SceneColors(self.simulation.model)
            self._painter.apply(self._draw_colors())
        # quadruped_escape has a new terrain in every episode.
        self._stale = is_color(self.setting) or self.simulation.model.nhfield > 0
        return info

    def advance(self, action: ArrayLike) -> Outcome:
        """Act ``action_repeat`` times, or until the episode is over, without rendering.

        Parameters
        ----------
        action : (n,) array_like
            One number per actuator.

        Returns
        -------
        Outcome
            With the sum of the rewards; everything else is from the last control step.

        Raises
        ------
        InputError
            The action does not have the task's shape, or is not finite.
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
        """Render the state in front of the clip and return the frame, (H, W, 3) uint8 RGB."""
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

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_renderer": None, "_clip": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._painter is not None and self._simulation is not None:
            self._painter.model = self._simulation.model
        if self._drawn is not None:
            self._clip = self._open_clip(self._drawn)

    def __deepcopy__(self, memo: dict[int, Any]) -> Scene:
        memo[id(self)] = copied = type(self).__new__(type(self))
        for shared in (self._clips, self._palette):  # they may be large, and do not change
            memo[id(shared)] = shared
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def _open(self, seed: int) -> None:
        self.seed = seed
        self._simulation = open_simulation(self.task, self.seed)
        self._clip_random = np.random.default_rng([_CLIP_STREAM, self.seed])
        self._color_random = np.random.default_rng([_COLOR_STREAM, self.seed])
        self._painter = self._clip = self._drawn = self._frame = self._clean = self._rendered = None
        self._time, self._started, self._stale = 0, False, False

    def _checked_seed(self, seed: int | None) -> int:
        """Return a seed, drawn from the system's entropy if there is none."""
        if seed is None:
            return int(np.random.SeedSequence().generate_state(1)[0])
        return check_whole("seed", seed, 0, self._max_seed)

    def _require(self, frame: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        if frame is None:
            raise SamgError(f"{self.task.name} has not been looked at yet: call reset() first")
        return frame

    def _current_renderer(self) -> SceneRenderer:
        """Return the renderer, up to date with the model; the first call, on the thread that renders, creates it."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.simulation.model, self.size, self.task.floor, self.task.target)
        elif self._stale:
            self._renderer.upload()
        self._stale = False
        return self._renderer

    def _draw_clip(self) -> int:
        """Draw the seed of a procedural clip, or the index of a given one."""
        if self._clips is None:
            return FIRST_PROCEDURAL_SEED + int(self._clip_random.integers(2**31))
        return int(self._clip_random.integers(len(self._clips)))

    def _open_clip(self, drawn: int) -> Clip:
        return procedural_clip(drawn, self.size) if self._clips is None else self._clips[drawn]

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


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, tuple) and len(size) != 2:
        raise InputError(f"size must be one number, or height and width, it is {size!r}")
    height, width = size if isinstance(size, tuple) else (size, size)
    for side in (height, width):
        check_whole("size", side, 1)
    return int(height), int(width)
