"""`make` and `stack`: environments with image observations, by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from samg_fast.bundle.zoo import bundles
from samg_fast.checks import check_whole
from samg_fast.envs.scene import Scene
from samg_fast.envs.tasks import find_task, nearest
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.loading import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from samg_fast.envs.backgrounds import Clip
    from samg_fast.envs.settings import Palette
    from samg_fast.envs.tasks import Task
    from samg_fast.segmenter import Segmenter

__all__ = ["make", "stack"]

_APIS: Final = ("gymnasium", "dm_env")


def make(
    task: str | Task,
    *,
    setting: str = "original",
    size: int | tuple[int, int] = 84,
    frame_stack: int | None = 3,
    action_repeat: int = 2,
    seed: int | None = None,
    camera: int | str | None = None,
    clips: str | PathLike[str] | Sequence[Clip] | None = None,
    colors: str | PathLike[str] | Palette | None = None,
    ground_truth: bool = False,
    mask: str | None = None,
    api: str = "gymnasium",
) -> Any:
    """Make an environment with image observations.

    To mask the images with a segmenter of your own, mask first and stack afterwards: make the environment with
    ``frame_stack=None``, wrap it, then call `stack`.

    Parameters
    ----------
    task : str or Task
        A task of dm_control's suite such as ``"walker_walk"``, or ``"adroit_door"``, ``"adroit_hammer"``,
        ``"adroit_pen"``.
    setting : str
        ``"original"``, ``"color_easy"``, ``"color_hard"``, ``"video_easy"`` or ``"video_hard"``.
    size : int or (int, int)
        Height and width of the images in pixels, or one number for both.
    frame_stack : int or None
        Number of latest images in an observation, channels first as in `stack`: (3 * frame_stack, H, W) uint8. None
        gives the latest image alone, channels last, as it is rendered and as the masking wrappers take it: (H, W, 3)
        uint8.
    action_repeat : int
        Control steps per action; their rewards are summed. Repeating stops when the episode ends.
    seed : int, optional
        Seed of everything random, 0 or more. The same seed and actions give the same images to the pixel. By default
        every environment has another one, so that several of them differ.
    camera : int or str, optional
        Index or name of a camera of the model; by default the task's own.
    clips : path or sequence of Clip, optional
        Backgrounds of the video settings: a folder of videos, a folder with a subfolder of videos for each of
        ``video_easy`` and ``video_hard``, or clips. By default every episode has a new procedural background. The other
        settings ignore it.
    colors : path or sequence of Colors, optional
        Colours of the colour settings: a file of the benchmark, a folder with its ``color_easy.pt`` and
        ``color_hard.json``, or colour sets. By default every episode draws new random colours. The other settings
        ignore it.
    ground_truth : bool
        Whether to include the exact mask of every image, (H, W) bool: in gymnasium as ``info["mask"]``, in dm_env as
        ``observation["mask"]``. With a stack it is the mask of the latest image.
    mask : {"fitted"}, optional
        Mask the images with the bundle that ships for this task, `samg_fast.load` of its name.
    api : {"gymnasium", "dm_env"}
        See `samg_fast.envs.gymnasium.PixelTask` and `samg_fast.envs.dm_env.PixelTask`.

    Returns
    -------
    gymnasium.Env or dm_env.Environment

    Raises
    ------
    InputError
        A task, setting, camera or api is unknown (the message suggests similar names); a size, seed, stack or action
        repeat is out of range; a folder has no clips, or there are no colours.
    InputTypeError
        A number is not a whole number, or clips or colours have the wrong type.
    FileError
        A colour file cannot be read. `reset` and `step` raise it if a clip cannot be decoded.
    BundleError
        No fitted bundle ships for the task.
    MissingExtraError
        The task's simulation, or gymnasium, is not installed.
    RenderingError
        Off-screen rendering cannot start; the message says what was tried and which Debian packages to install.
    """
    if api not in _APIS:
        raise InputError(f"there is no api {api!r}: {nearest(api, _APIS)}")
    if frame_stack is not None:
        check_whole("frame_stack", frame_stack, 1)
    # Imported before the scene is opened, so that a missing gymnasium leaves no scene to close.
    pixel_task = importlib.import_module(f"samg_fast.envs.{api}").PixelTask
    segmenter = None if mask is None else _fitted(mask, task)
    scene = Scene(task, setting, size, seed, clips, colors, action_repeat, camera)
    environment = pixel_task(scene, ground_truth=ground_truth)
    if segmenter is not None:
        wrappers = importlib.import_module(f"samg_fast.wrappers.{api}")
        environment = (wrappers.MaskedObservation if api == "gymnasium" else wrappers.MaskedPixels)(
            environment, segmenter
        )
    return environment if frame_stack is None else stack(environment, frame_stack)


def _fitted(mask: str, task: str | Task) -> Segmenter:
    """Open the fitted bundle of a task."""
    if mask != "fitted":
        raise InputError(f"mask must be 'fitted' or None, not {mask!r}")
    name = find_task(task).name if isinstance(task, str) else task.name
    known = [each.name for each in bundles() if each.shipped]
    if name not in known:
        raise BundleError(f"no fitted bundle ships for {name}: make one with samg-fast fit, and wrap the environment")
    return load(name)


def stack(env: Any, frames: int, pixels_key: str = "pixels") -> Any:
    """Stack an environment's latest images into one observation, channels first, oldest image first.

    This is the layout of DrQ-v2, PIE-G and the official SAM-G: images of (H, W, C) uint8 become
    (C * frames, H, W) uint8. At the start of an episode the first image fills the whole stack.

    Parameters
    ----------
    env : gymnasium.Env or dm_env.Environment
        Its observations are images, masked or not; in dm_env a mapping that contains them.
    frames : int
        Number of images to stack.
    pixels_key : str
        Name of the images among dm_env's observations; the others are unchanged.

    Returns
    -------
    gymnasium.Env or dm_env.Environment
        Everything but the images is forwarded to `env`, attributes included.

    Raises
    ------
    InputError
        `frames` is less than 1, or the environment has no images that can be stacked, or stacks them already; the
        message says what it has.
    InputTypeError
        `frames` is not a whole number, or `env` is neither kind of environment.
    """
    check_whole("frames", frames, 1)
    if hasattr(env, "observation_spec"):
        from samg_fast.wrappers import dm_env

        return dm_env.FrameStack(env, frames, pixels_key)
    if hasattr(env, "observation_space"):
        from samg_fast.wrappers import gymnasium

        return gymnasium.FrameStack(env, frames)
    raise InputTypeError(f"env must be an environment of gymnasium or dm_env, not {type(env).__name__}")
