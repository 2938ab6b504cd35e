"""A running dm_control task in any of the five settings, with ground truth; needs neither gym nor a display."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.envs.backgrounds import procedural_clip
from samg_fast.envs.policy import SmoothPolicy
from samg_fast.envs.rendering import Rendered, RenderingError, SceneRenderer, ensure_gl
from samg_fast.envs.settings import (
    Colors,
    Palette,
    SceneColors,
    check_setting,
    composite,
    is_color,
    is_video,
    random_colors,
)
from samg_fast.envs.tasks import Task, find_task
from samg_fast.errors import InputError, MissingExtraError, SamgError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.backgrounds import Clip

__all__ = ["FIRST_PROCEDURAL_SEED", "LiveTask", "reference"]

FIRST_PROCEDURAL_SEED = 1_000_000
"""Procedural backgrounds of the environments have this seed or a higher one; training uses lower ones."""

# Independent random streams of one seed, so that a setting's draws do not change the actions.
_POLICY, _CLIPS, _COLORS = 1, 2, 3

# reference() looks at a state that the episodes of the same seed do not start in.
_REFERENCE_OFFSET = 500_000_000

Observation = tuple["NDArray[np.uint8]", "NDArray[np.bool_]"]


class LiveTask:
    """A dm_control task that renders itself, in one setting, with the ground truth of every frame.

    The ground truth is every pixel of a body that moves relative to the world. A clip starts at its first picture with
    every episode, moves on one picture with every step and loops; each episode draws its clip, or its colours, anew.
    The same arguments give the same frames to the pixel.

    Parameters
    ----------
    task : str or Task
        A name such as ``"walker_walk"``, or a `Task`.
    setting : str
        One of ``samg_fast.envs.SETTINGS``.
    size : int or (int, int)
        Height and width of the frames in pixels, or the one number for both.
    seed : int
        Of everything random here: initial states, random actions, clips and colours; 0 to 2**32 - 1.
    clips : sequence of Clip, optional
        Backgrounds for the video settings; by default every episode makes a procedural one.
    colors : tuple of Colors, optional
        Colour sets for the colour settings, as `samg_fast.envs.settings.load_colors` reads them; by default every
        episode draws random ones.
    action_repeat : int
        Control steps a `step` takes with one action.

    Raises
    ------
    InputError
        An unknown task or setting (the message names the nearest), a bad size, seed or action repeat, no clips or
        colours in what was given.
    MissingExtraError
        dm_control is not installed.
    RenderingError
        Off-screen rendering cannot start; the message says what was tried and which Debian package mends it.

    Notes
    -----
    To be used, and closed, on one thread: the OpenGL context belongs to the thread of the first `reset`.
    """

    def __init__(
        self,
        task: str | Task,
        setting: str = "original",
        size: int | tuple[int, int] = 84,
        seed: int = 0,
        clips: Sequence[Clip] | None = None,
        colors: Palette | None = None,
        action_repeat: int = 2,
    ) -> None:
        self.task = task if isinstance(task, Task) else find_task(task)
        self.setting = check_setting(setting)
        self.size = _size(size)
        self.seed = _integer("seed", seed, 0, 2**32 - 1)
        self.action_repeat = _integer("action_repeat", action_repeat, 1)
        if clips is not None and not clips:
            raise InputError("clips is empty: give at least one clip, or None for procedural backgrounds")
        if colors is not None and not colors:
            raise InputError("colors is empty: give at least one colour set, or None for random colours")
        self._clips, self._palette = clips, colors
        self._renderer: SceneRenderer | None = None
        self._scene: SceneColors | None = None
        self._environment: Any = _load(self.task, self.seed)
        self._policy = SmoothPolicy(self._environment.action_spec(), np.random.default_rng([_POLICY, self.seed]))
        self._clip_random = np.random.default_rng([_CLIPS, self.seed])
        self._color_random = np.random.default_rng([_COLORS, self.seed])
        self._clip: Clip | None = None
        self._uploaded: NDArray[np.float32] | None = None
        self._rendered: Rendered | None = None
        self._time = 0
        self._ended = True

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Ground truth of the latest frame, (H, W) bool."""
        return self._latest().mask

    @property
    def clean(self) -> NDArray[np.uint8]:
        """The latest frame before a clip was laid behind it, (H, W, 3) uint8; the frame itself without a clip."""
        return self._latest().rgb

    @property
    def rendered(self) -> Rendered:
        """The latest render: picture, body and kind of every pixel."""
        return self._latest()

    @property
    def environment(self) -> Any:
        """The dm_control environment inside, a ``dm_control.rl.control.Environment``."""
        return self._open()

    @property
    def ended(self) -> bool:
        """Whether the next `step` starts a new episode."""
        return self._ended

    @property
    def clip_name(self) -> str | None:
        """Name of the clip behind this episode; None in settings without video."""
        return self._clip.name if self._clip is not None else None

    def reset(self) -> NDArray[np.uint8]:
        """Start a new episode.

        Returns
        -------
        ndarray
            Its first frame, (H, W, 3) uint8 RGB.
        """
        self._begin()
        return self._observe()

    def step(self, action: ArrayLike | None = None) -> NDArray[np.uint8]:
        """Act, ``action_repeat`` times, and look.

        Parameters
        ----------
        action : (n,) array_like, optional
            One number per actuator; by default a smooth random action.

        Returns
        -------
        ndarray
            The next frame, (H, W, 3) uint8 RGB. After the last frame of an episode, and before the first reset, it
            is the first frame of a new one, and the action is not used.

        Raises
        ------
        InputError
            The action has another shape than the task's, or is not finite.
        """
        self._advance(action)
        return self._observe()

    def skip(self, steps: int) -> None:
        """Take random steps without looking, which takes a fraction of the time; the clip moves on too.

        Parameters
        ----------
        steps : int
            How many; 0 does nothing.
        """
        for _ in range(_integer("steps", steps, 0)):
            self._advance(None)

    def reference(self, seed: int | None = None) -> Observation:
        """Picture the same task, at the same size, once and cleanly, leaving this one as it is.

        Parameters
        ----------
        seed : int
            Of the state to see; by default one that differs from the episodes' of this task.

        Returns
        -------
        image : ndarray
            (H, W, 3) uint8 RGB in the original setting.
        mask : ndarray
            (H, W) bool, its ground truth.
        """
        if seed is None:
            seed = (self.seed + _REFERENCE_OFFSET) % 2**32
        return reference(self.task, self.size, seed)

    def close(self) -> None:
        """Free the OpenGL context and the simulation; closing twice does nothing."""
        renderer, self._renderer = self._renderer, None
        environment, self._environment = self._environment, None
        try:
            if renderer is not None:
                renderer.close()
        finally:
            if environment is not None:
                environment.close()

    def __enter__(self) -> LiveTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Any:
        if self._environment is None:
            raise SamgError(f"{self.task.name} is closed")
        return self._environment

    def _latest(self) -> Rendered:
        if self._rendered is None:
            raise SamgError(f"{self.task.name} has not been looked at yet: call reset() first")
        return self._rendered

    def _begin(self) -> None:
        """Start an episode without looking."""
        self._open().reset()
        self._policy.reset()
        self._time, self._ended, self._rendered = 0, False, None
        if is_video(self.setting):
            self._clip = self._draw_clip()
        if is_color(self.setting):
            self._repaint(self._draw_colors())

    def _advance(self, action: ArrayLike | None) -> None:
        """Take one step without looking."""
        environment = self._open()
        # Also where the action goes unused: a wrong one should not pass because an episode happens to start.
        given = None if action is None else self._policy.check(action)
        if self._ended:
            self._begin()
            return
        act = self._policy() if given is None else given
        for _ in range(self.action_repeat):
            if environment.step(act).last():
                self._ended = True
                break
        self._time += 1
        self._rendered = None

    def _observe(self) -> NDArray[np.uint8]:
        """Render the state and lay the clip behind it."""
        physics = self._open().physics
        rendered = self._scene_renderer().render(physics.data.ptr, self.task.camera)
        self._rendered = rendered
        background = None if self._clip is None else self._clip.frame(self._time)
        return composite(rendered, background, self.setting)

    def _scene_renderer(self) -> SceneRenderer:
        """Return the renderer, a new one where the graphics memory would hold an old terrain (quadruped_escape)."""
        model = self._open().physics.model.ptr
        stale = self._uploaded is None or not np.array_equal(self._uploaded, model.hfield_data)
        if self._renderer is None or stale:
            self._discard_renderer()
            self._renderer = SceneRenderer(model, self.size)
            self._uploaded = np.array(model.hfield_data)
        return self._renderer

    def _discard_renderer(self) -> None:
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.close()

    def _draw_clip(self) -> Clip:
        if self._clips is None:
            seed = FIRST_PROCEDURAL_SEED + int(self._clip_random.integers(2**31))
            return procedural_clip(seed, self.size)
        return self._clips[int(self._clip_random.integers(len(self._clips)))]

    def _draw_colors(self) -> Colors:
        if self._palette is None:
            return random_colors(self.setting, self._color_random)
        return self._palette[int(self._color_random.integers(len(self._palette)))]

    def _repaint(self, colors: Colors) -> None:
        if self._scene is None:
            self._scene = SceneColors(self._open().physics.model.ptr)
        self._scene.apply(colors)
        self._discard_renderer()  # textures go to the graphics memory when a renderer is made


def reference(task: str | Task, size: int | tuple[int, int] = 84, seed: int = 0) -> Observation:
    """Render one picture of a task in the original setting: the first frame of an episode.

    Parameters
    ----------
    task : str or Task
        A task or its name.
    size : int or (int, int)
        Height and width in pixels, or the one number for both.
    seed : int
        Of the initial state.

    Returns
    -------
    image : ndarray
        (H, W, 3) uint8 RGB.
    mask : ndarray
        (H, W) bool, its ground truth.

    Raises
    ------
    SamgError
        As `LiveTask` does.
    """
    with LiveTask(task, "original", size, seed) as live:
        return live.reset(), live.mask


def _load(task: Task, seed: int) -> Any:
    """Load the dm_control environment, with errors in words."""
    gl = ensure_gl()
    try:
        from dm_control import suite
    except ModuleNotFoundError as error:
        raise MissingExtraError("a live task", "dmc") from error
    except Exception as error:  # whatever PyOpenGL or MuJoCo raise where a library is missing
        used = os.environ.get("MUJOCO_GL", gl)
        raise RenderingError(
            f"off-screen rendering cannot start with MUJOCO_GL={used} ({error}); on Debian install libegl1 libgl1 "
            "libegl-mesa0 libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
        ) from error
    return suite.load(task.domain, task.task, task_kwargs={"random": seed})


def _size(size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, tuple) and len(size) != 2:
        raise InputError(f"size must be one number, or height and width, it is {size!r}")
    height, width = size if isinstance(size, tuple) else (size, size)
    return _integer("size", height, 1), _integer("size", width, 1)


def _integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Check a whole number in a range."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise InputError(f"{name} must be a whole number {bounds}, it is {value!r}")
    return int(value)
