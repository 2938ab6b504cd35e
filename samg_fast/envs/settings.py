"""The five settings of the DMControl Generalization Benchmark, on today's MuJoCo.

The benchmark (Hansen and Wang, arXiv 2011.13389) paints the sky, and in ``video_hard`` the floor, green and replaces
green pixels by the clip. That also removes greenish pixels of the robot and misses shaded pixels of the floor. Here
MuJoCo's own segmentation decides: the clip replaces exactly the sky, or exactly the sky and the floor.

The colour settings repaint what the benchmark repaints: the two checks of the floor, the upper colour of the sky and
the material ``self`` of the robot. MuJoCo's compiler generates the textures, as if the model had been written with
these colours. The Adroit scenes have no sky: there the floor, the hand and, in place of the sky, the table are
repainted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from samg_fast.checks import describe
from samg_fast.envs.color_files import SUFFIXES, read_entries
from samg_fast.envs.rendering import KIND_FLOOR, KIND_SKY
from samg_fast.envs.tasks import nearest
from samg_fast.errors import FileError, InputError, InputTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from samg_fast.envs.rendering import Rendered

__all__ = [
    "PLAIN",
    "SETTINGS",
    "Colors",
    "Palette",
    "check_setting",
    "clip_folder",
    "composite",
    "is_color",
    "is_video",
    "load_colors",
    "open_colors",
    "random_colors",
    "resize_background",
]

SETTINGS: Final[tuple[str, ...]] = ("original", "color_easy", "color_hard", "video_easy", "video_hard")
"""The settings, easiest first."""

# Setting -> kinds of pixel that the clip replaces.
_REPLACED: Final[dict[str, tuple[int, ...]]] = {"video_easy": (KIND_SKY,), "video_hard": (KIND_SKY, KIND_FLOOR)}

# Setting -> standard deviation of the benchmark's colour sets about dm_control's own colours.
_SPREAD: Final[dict[str, float]] = {"color_easy": 0.1, "color_hard": 0.2}

Color = tuple[float, float, float]


def check_setting(name: str) -> str:
    """Return `name` if it is a setting.

    Raises
    ------
    InputError
        There is no such setting; the message suggests similar names.
    """
    if name not in SETTINGS:
        raise InputError(f"there is no setting {name!r}: {nearest(name, SETTINGS)}")
    return name


def is_video(setting: str) -> bool:
    """Whether the setting shows a clip behind the robot."""
    return setting in _REPLACED


def is_color(setting: str) -> bool:
    """Whether the setting repaints the scene."""
    return setting in _SPREAD


def clip_folder(folder: str | PathLike[str], setting: str) -> Path:
    """Return the folder of a setting's clips: its own subfolder if there is one, else the folder itself.

    Parameters
    ----------
    folder : path
        A folder of clips or, as in the benchmark, of the subfolders ``video_easy`` and ``video_hard``.
    setting : str
    """
    subfolder = _setting_path(Path(folder), setting, _REPLACED)
    return subfolder if subfolder.is_dir() else Path(folder)


def _setting_path(folder: Path, setting: str, settings: Iterable[str], suffix: str = "") -> Path:
    """Return the path of a setting's data in a folder laid out like the benchmark's.

    A setting that needs no such data gets the path of one that does, an existing one if possible, so that a wrong
    folder is reported even if it is not needed yet.
    """
    paths = {name: folder / f"{name}{suffix}" for name in settings}
    first, *_ = sorted(paths.values(), key=Path.exists, reverse=True)
    return paths.get(setting, first)


def resize_background(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a clip's image to the size of the observation, bilinearly; its aspect ratio is not kept.

    Parameters
    ----------
    frame : (h, w, 3) uint8
        RGB.
    size : (int, int)
        (height, width) of the observation in pixels.

    Returns
    -------
    ndarray
        (height, width, 3) uint8 RGB; the frame itself if it already has that size.

    Raises
    ------
    InputError
        The frame is not (h, w, 3) uint8.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InputError(
            f"a background frame must be (height, width, 3) uint8, this one is {frame.shape} {frame.dtype}"
        )
    if frame.shape[:2] == size:
        return frame
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def composite(rendered: Rendered, background: NDArray[np.uint8] | None, setting: str) -> NDArray[np.uint8]:
    """Put a clip's image behind a rendered scene.

    Parameters
    ----------
    rendered : Rendered
        The scene, with the kind of every pixel.
    background : (h, w, 3) uint8, optional
        RGB image of the clip, resized to the scene if the size differs. Ignored, and may be None, in settings without
        video.
    setting : str
        One of `SETTINGS`. ``video_easy`` replaces exactly the sky, ``video_hard`` exactly the sky and the floor, by
        `Rendered.kind`. All other pixels, and all pixels in the other settings, are the rendered ones.

    Returns
    -------
    ndarray
        (H, W, 3) uint8 RGB, a new array.

    Raises
    ------
    InputError
        The setting is unknown, a video setting has no background, or the background is not an RGB image.
    """
    kinds = _REPLACED.get(check_setting(setting))
    if kinds is None:
        return rendered.rgb.copy()
    if background is None:
        raise InputError(f"the setting {setting} needs a background, and there is none")
    height, width = rendered.kind.shape
    behind = resize_background(background, (height, width))
    return np.where(np.isin(rendered.kind, kinds)[..., None], behind, rendered.rgb)


@dataclass(frozen=True, slots=True)
class Colors:
    """Colours of one scene, as RGB between 0 and 1; the defaults are dm_control's.

    Parameters
    ----------
    grid_rgb1, grid_rgb2 : (float, float, float)
        The two checks of the floor.
    skybox_rgb : (float, float, float)
        The sky overhead; it fades to black below the horizon.
    self_rgb : (float, float, float)
        The robot's main material.
    """

    grid_rgb1: Color = (0.1, 0.2, 0.3)
    grid_rgb2: Color = (0.2, 0.3, 0.4)
    skybox_rgb: Color = (0.4, 0.6, 0.8)
    self_rgb: Color = (0.7, 0.5, 0.3)


PLAIN: Final = Colors()
"""dm_control's own colours."""

Palette = Sequence[Colors]
"""Colour sets to draw an episode's colours from."""


def load_colors(path: str | PathLike[str]) -> tuple[Colors, ...]:
    """Read colour sets from the benchmark's own ``color_easy.pt`` or ``color_hard.pt``, or from a JSON file.

    Parameters
    ----------
    path : path
        A ``.pt`` or JSON file with a list of objects with the keys ``grid_rgb1``, ``grid_rgb2``, ``skybox_rgb`` and
        ``self_rgb``, each three numbers between 0 and 1; a key that is left out keeps dm_control's colour.

    Returns
    -------
    tuple of Colors
        At least one.

    Raises
    ------
    FileError
        The file cannot be read, or is not such a list; the message says which entry is wrong.
    """
    return tuple(_colors(entry, f"entry {index} of {path}") for index, entry in enumerate(read_entries(path)))


def _colors(entry: Any, where: str) -> Colors:
    """Build a colour set from an entry of a file, once it is checked."""
    names = [field.name for field in fields(Colors)]
    if not isinstance(entry, dict):
        raise FileError(f"{where} is not an object with the keys {', '.join(names)}")
    if unknown := sorted(set(entry) - set(names)):
        raise FileError(f"{where} has the unknown key {unknown[0]!r}: {nearest(unknown[0], names)}")
    for key, value in entry.items():
        numbers = isinstance(value, list) and all(type(each) in (int, float) for each in value)
        if not numbers or len(value) != 3 or not all(0 <= each <= 1 for each in value):
            raise FileError(f"{where}: {key} must be three numbers between 0 and 1, it is {value!r}")
    return Colors(**{key: (float(value[0]), float(value[1]), float(value[2])) for key, value in entry.items()})


def open_colors(colors: str | PathLike[str] | Palette, setting: str) -> Palette:
    """Return the colour sets of a file or of the benchmark's folder, or the given sets once they are checked.

    Parameters
    ----------
    colors : path or sequence of Colors
        A file as `load_colors` reads it, a folder with ``color_easy.pt`` and ``color_hard.pt``, as the benchmark's
        ``src/env/data``, or with JSON files of these names, or colour sets.
    setting : str
        The setting whose file to read from a folder.

    Returns
    -------
    sequence of Colors

    Raises
    ------
    InputError
        There is no colour set in what was given.
    InputTypeError
        `colors` is neither a path nor a sequence of colour sets.
    FileError
        The file cannot be read, or is not a list of colour sets.
    """
    if isinstance(colors, (str, PathLike)):
        path = Path(colors)
        if path.is_dir():
            paths = [_setting_path(path, setting, _SPREAD, suffix) for suffix in SUFFIXES]
            path = next((each for each in paths if each.exists()), paths[0])
        return load_colors(path)
    are_colors = isinstance(colors, Sequence) and all(isinstance(each, Colors) for each in colors)
    if not are_colors:
        raise InputTypeError(
            "colors must be a file, a folder with color_easy.pt and color_hard.pt, or a sequence of Colors, "
            f"not {describe(colors)}"
        )
    if not colors:
        raise InputError("colors is empty: give at least one colour set, or None for random colours")
    return colors


def random_colors(setting: str, random: np.random.Generator) -> Colors:
    """Draw colours like the benchmark's: dm_control's, plus normal noise (0.1 in easy, 0.2 in hard), clipped to 0..1.

    Parameters
    ----------
    setting : str
        ``"color_easy"`` or ``"color_hard"``.
    random : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    Colors
        As in the benchmark's sets, the second check of the floor is the first one made lighter by 0.1.

    Raises
    ------
    InputError
        It is not a colour setting.
    """
    if setting not in _SPREAD:
        raise InputError(f"random colours are for {' and '.join(_SPREAD)}, not for {setting!r}")
    noise = random.normal(0.0, _SPREAD[setting], (3, 3))

    def perturbed(color: Color, row: int) -> Color:
        red, green, blue = np.clip(np.asarray(color) + noise[row], 0.0, 1.0).tolist()
        return red, green, blue

    grid = perturbed(PLAIN.grid_rgb1, 0)
    lighter = (min(grid[0] + 0.1, 1.0), min(grid[1] + 0.1, 1.0), min(grid[2] + 0.1, 1.0))
    return Colors(
        grid_rgb1=grid,
        grid_rgb2=lighter,
        skybox_rgb=perturbed(PLAIN.skybox_rgb, 1),
        self_rgb=perturbed(PLAIN.self_rgb, 2),
    )
