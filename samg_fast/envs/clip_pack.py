"""The clip pack: rendered frames with exact ground truth that ship inside the package.

It lets the demonstration, the latency benchmark and the tests run where nothing can be rendered. Reading one needs
NumPy alone; ``python -m samg_fast.envs.clip_pack OUT.npz`` makes one, and makes the shipped one again from its seed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
import zlib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from samg_fast.envs.settings import check_setting
from samg_fast.envs.tasks import EIGHT, find_task
from samg_fast.errors import MediaError, SamgError
from samg_fast.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]
    Masks = NDArray[np.bool_]

__all__ = ["SHIPPED", "Pack", "PackTask", "build_pack", "load_pack", "save_pack"]

SHIPPED: Final = Path(__file__).parent.parent / "clips" / "demo.npz"
"""The pack inside the package."""

PACK_SETTINGS: Final[tuple[str, ...]] = ("original", "video_easy", "video_hard")
PACK_SEED: Final = 2312_17116
_FORMAT: Final = 1


@dataclass(frozen=True)
class PackTask:
    """What a pack has of one task.

    Attributes
    ----------
    reference : (H, W, 3) uint8
        One clean picture in the original setting, of another episode than the frames.
    reference_mask : (H, W) bool
        Its ground truth.
    settings : mapping
        Setting → (frames, masks): consecutive frames of one episode, (T, H, W, 3) uint8 RGB, and their ground truth,
        (T, H, W) bool. Every setting shows the same motion.
    """

    reference: Frames
    reference_mask: Masks
    settings: Mapping[str, tuple[Frames, Masks]]


@dataclass(frozen=True)
class Pack:
    """A clip pack.

    Attributes
    ----------
    tasks : mapping
        Name of a task → `PackTask`.
    about : mapping
        How it was made: seed, size, frames and versions.
    """

    tasks: Mapping[str, PackTask]
    about: Mapping[str, Any] = field(default_factory=dict)


def build_pack(
    tasks: Sequence[str] = EIGHT,
    settings: Sequence[str] = PACK_SETTINGS,
    *,
    frames: int = 16,
    size: int = 84,
    seed: int = PACK_SEED,
    progress: Callable[[str], None] | None = None,
) -> Pack:
    """Render a pack, with procedural backgrounds.

    Parameters
    ----------
    tasks, settings : sequence of str
        Names of what goes into it.
    frames : int
        Consecutive frames of each task in each setting: two control steps apart, from the beginning of an episode.
    size : int
        Side of the frames in pixels.
    seed : int
        Of everything random; the same seed gives the same pack on the same renderer.
    progress : callable, optional
        Called with the name of each task and setting before it is rendered.

    Returns
    -------
    Pack
        The pack, in memory.

    Raises
    ------
    SamgError
        Unknown names, or rendering cannot start.
    """
    from samg_fast.envs.dmc import LiveTask, reference

    made: dict[str, PackTask] = {}
    for index, name in enumerate(find_task(each).name for each in tasks):
        clips: dict[str, tuple[Frames, Masks]] = {}
        for setting in map(check_setting, settings):
            if progress is not None:
                progress(f"{name} {setting}")
            with LiveTask(name, setting, size, seed + index) as live:
                shown = [(live.step(), live.mask) for _ in range(frames)]
            clips[setting] = (np.stack([frame for frame, _ in shown]), np.stack([mask for _, mask in shown]))
        image, mask = reference(name, size, seed + len(tasks) + index)
        made[name] = PackTask(image, mask, clips)
    versions = {package: version(package) for package in ("mujoco", "dm_control")}
    return Pack(made, {"format": _FORMAT, "seed": seed, "size": size, "frames": frames, **versions})


def save_pack(pack: Pack, path: str | PathLike[str]) -> None:
    """Write a pack, whole or not at all.

    Parameters
    ----------
    pack : Pack
        What to write.
    path : path
        An ``.npz`` file, replaced if it is there.

    Raises
    ------
    MediaError
        It cannot be written there.
    """
    arrays: dict[str, NDArray[Any]] = {"about": np.array(json.dumps({**pack.about, "tasks": list(pack.tasks)}))}
    for name, task in pack.tasks.items():
        arrays[f"{name}/reference/frames"] = task.reference
        arrays[f"{name}/reference/masks"] = np.packbits(task.reference_mask, axis=-1)
        for setting, (frames, masks) in task.settings.items():
            # What stays as it was in the picture before becomes zero, which packs far better.
            arrays[f"{name}/{setting}/frames"] = np.diff(frames, axis=0, prepend=np.zeros_like(frames[:1]))
            arrays[f"{name}/{setting}/masks"] = np.packbits(masks, axis=-1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def load_pack(path: str | PathLike[str] | None = None) -> Pack:
    """Read a pack; needs neither MuJoCo nor OpenGL.

    Parameters
    ----------
    path : path
        The pack's file; by default the one that ships with the package.

    Returns
    -------
    Pack
        Its tasks in the order they were built in.

    Raises
    ------
    MediaError
        The file is not there, or is not a whole clip pack of this version.
    """
    path = SHIPPED if path is None else Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != _FORMAT:
                raise MediaError(f"the clip pack {path} has format {about['format']}, this version reads {_FORMAT}")
            tasks = {name: _read_task(arrays, name) for name in about.pop("tasks")}
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"cannot read the clip pack {path}: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MediaError(f"{path} is not a whole clip pack: {error}") from error
    return Pack(tasks, about)


def _read_task(arrays: Mapping[str, NDArray[Any]], name: str) -> PackTask:
    """Read one task's arrays."""
    reference: Frames = arrays[f"{name}/reference/frames"]
    width = reference.shape[1]

    def masks(part: str) -> Masks:
        return np.unpackbits(arrays[f"{name}/{part}/masks"], axis=-1, count=width).astype(bool)

    def frames(part: str) -> Frames:
        return np.cumsum(arrays[f"{name}/{part}/frames"], axis=0, dtype=np.uint8)

    parts = [key.split("/")[1] for key in arrays if key.startswith(f"{name}/") and key.endswith("/frames")]
    clips = {part: (frames(part), masks(part)) for part in parts if part != "reference"}
    return PackTask(reference, masks("reference"), clips)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a pack from the command line.

    Returns
    -------
    int
        Exit status: 0, or 1 with a line on stderr that says why.
    """
    parser = argparse.ArgumentParser(
        prog="python -m samg_fast.envs.clip_pack",
        description="Render a clip pack: frames with ground truth, and a clean reference of each task.",
        epilog="example: python -m samg_fast.envs.clip_pack samg_fast/clips/demo.npz",
    )
    parser.add_argument("out", type=Path, help="the .npz file to write")
    parser.add_argument("--tasks", nargs="+", default=list(EIGHT), metavar="TASK", help="default: the paper's eight")
    parser.add_argument("--settings", nargs="+", default=list(PACK_SETTINGS), metavar="SETTING")
    parser.add_argument("--frames", type=int, default=16, help="frames of each task in each setting (%(default)s)")
    parser.add_argument("--size", type=int, default=84, help="side of the frames in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=PACK_SEED, help="%(default)s")
    options = parser.parse_args(arguments)

    terminal = sys.stderr.isatty()

    def progress(what: str) -> None:
        if terminal:
            print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)

    try:
        pack = build_pack(
            options.tasks,
            options.settings,
            frames=options.frames,
            size=options.size,
            seed=options.seed,
            progress=progress,
        )
        save_pack(pack, options.out)
    except SamgError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
    print(f"{options.out}: {len(pack.tasks)} tasks, {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
