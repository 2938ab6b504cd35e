"""`make` and `stack`: environments of pictures for agents, by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from samg_fast.checks import check_whole
from samg_fast.envs.scene import Scene
from samg_fast.envs.tasks import nearest
from samg_fast.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from samg_fast.envs.backgrounds import Clip
    from samg_fast.envs.settings import Palette
    from samg_fast.envs.tasks import Task

__all__ = ["make", "stack"]

_APIS: Final = ("gymnasium", "dm_env")


def make(
    task: str | Task,
    *,
    setting: str = "original",
    size: int | tuple[int, int] = 84,
    frame_stack: int | None = 3,
    action_repeat: int = 2,
    seed: int = 0,
    camera: int | str | None = None,
    clips: str | PathLike[str] | Sequence[Clip] | None = None,
    colors: str | PathLike[str] | Palette | None = None,
    ground_truth: bool = False,
    api: str = "gymnasium",
) -> Any:
    """Make an environment whose observations are pictures.

    Where the pictures are to be masked, they are masked first and stacked then: make the environment with
    ``frame_stack=None``, wrap it, and `stack` it.

    Parameters
    ----------
    task : str or Task
        A task of dm_control's suite, such as ``"walker_walk"``, or ``"adroit_door"``, ``"adroit_hammer"``,
        ``"adroit_pen"``.
    setting : str
        ``"original"``, ``"color_easy"``, ``"color_hard"``, ``"video_easy"`` or ``"video_hard"``.
    size : int or (int, int)
        Height and width of the pictures in pixels, or the one number for both.
    frame_stack : int or None
        How many of the latest pictures an observation has, as `stack` lays them out, channels first:
        (3 * frame_stack, H, W) uint8. None gives the picture alone and channels last, as it is rendered and as it can
        be masked: (H, W, 3) uint8.
    action_repeat : int
        Control steps that are taken with one action; their rewards are summed. It stops where the episode does.
    seed : int
        Of everything random; 0 to 2**32 - 1. The same seed and actions give the same pictures to the pixel.
    camera : int or str, optional
        Index or name of the model's camera; by default the task's own.
    clips : path or sequence of Clip, optional
        What is seen behind in the video settings: a folder of videos, a folder that has one for each of them,
        ``video_easy`` and ``video_hard``, or clips; by default every episode makes a moving background of its own. The
        other settings leave it alone.
    colors : path or sequence of Colors, optional
        What the colour settings paint with: a file of the benchmark's, a folder with its ``color_easy.json`` and
        ``color_hard.json``, or colour sets; by default every episode draws colours of its own. The other settings leave
        it alone.
    ground_truth : bool
        Whether the exact mask of every picture, (H, W) bool, comes along: in gymnasium as ``info["mask"]``, in dm_env
        as ``observation["mask"]``. In a stack it is the latest picture's.
    api : {"gymnasium", "dm_env"}
        See `samg_fast.envs.gymnasium.PixelTask` and `samg_fast.envs.dm_env.PixelTask`.

    Returns
    -------
    gymnasium.Env or dm_env.Environment

    Raises
    ------
    InputError
        An unknown task, setting, camera or api (the message names the nearest), a bad size, seed, stack or action
        repeat, a folder without clips, no colours.
    InputTypeError
        A number is no whole number, clips or colours are of another kind.
    FileError
        A file of colours cannot be read; from `reset` and `step`, a clip.
    MissingExtraError
        The task's simulation, or gymnasium, is not installed.
    RenderingError
        Off-screen rendering cannot start; the message says what was tried and which Debian package mends it.
    """
    if api not in _APIS:
        raise InputError(f"there is no api {api!r}: {nearest(api, _APIS)}")
    if frame_stack is not None:
        check_whole("frame_stack", frame_stack, 1)
    # Imported first: without gymnasium there should be no scene left to close.
    pixel_task = importlib.import_module(f"samg_fast.envs.{api}").PixelTask
    scene = Scene(task, setting, size, seed, clips, colors, action_repeat, camera)
    environment = pixel_task(scene, ground_truth=ground_truth)
    return environment if frame_stack is None else stack(environment, frame_stack)


def stack(env: Any, frames: int, pixels_key: str = "pixels") -> Any:
    """Have an environment's observations show its latest pictures together, channels first, oldest picture first.

    This is the layout of DrQ-v2, PIE-G and the official SAM-G: pictures of (H, W, C) uint8 become
    (C * frames, H, W) uint8. The first picture of an episode stands for those that there would be before it.

    Parameters
    ----------
    env : gymnasium.Env or dm_env.Environment
        Its observations are pictures (in dm_env, a mapping that has them), masked or not.
    frames : int
        How many pictures are stacked.
    pixels_key : str
        Which of dm_env's observations are the pictures; the others stay as they are.

    Returns
    -------
    gymnasium.Env or dm_env.Environment
        Everything but the pictures is `env`'s, attributes included.

    Raises
    ------
    InputError
        `frames` is less than 1, or the environment has no pictures that can be stacked, or stacks them already; says
        what it has.
    InputTypeError
        `frames` is no whole number, `env` is neither kind of environment.
    """
    check_whole("frames", frames, 1)
    if hasattr(env, "observation_spec"):
        from samg_fast.wrappers import dm_env

        return dm_env.FrameStack(env, frames, pixels_key)
    if hasattr(env, "observation_space"):
        from samg_fast.wrappers import gymnasium

        return gymnasium.FrameStack(env, frames)
    raise InputTypeError(f"env must be an environment of gymnasium or dm_env, not {type(env).__name__}")
