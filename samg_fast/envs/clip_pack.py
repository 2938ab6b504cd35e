"""Renders clip packs, which `samg_fast.samples` reads: frames with ground truth, and a reference image of each task.

``python -m samg_fast.envs.clip_pack OUT.npz`` writes one; the default options reproduce the pack that ships.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from samg_fast.checks import Frame, Mask
from samg_fast.envs.settings import check_setting
from samg_fast.envs.tasks import EIGHT, find_task
from samg_fast.errors import SamgError
from samg_fast.samples import FORMAT, Pack, PackTask, load_pack, save_pack

__all__ = ["build_pack", "load_pack"]

PACK_SETTINGS: Final[tuple[str, ...]] = ("original", "video_easy", "video_hard")
PACK_SEED: Final = 2312_17116


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
        Names of the tasks and settings to render.
    frames : int
        Consecutive frames of each task in each setting, two control steps apart, from the start of an episode.
    size : int
        Side of the frames in pixels.
    seed : int
        Seed of everything random; the same seed gives the same pack on the same renderer.
    progress : callable, optional
        Called with the name of each task and setting before it is rendered.

    Returns
    -------
    Pack
        The pack, in memory.

    Raises
    ------
    SamgError
        A name is unknown, or rendering cannot start.
    """
    from samg_fast.envs.dmc import LiveTask, reference

    rendered: dict[str, PackTask] = {}
    for index, name in enumerate(find_task(each).name for each in tasks):
        clips: dict[str, tuple[Frame, Mask]] = {}
        for setting in map(check_setting, settings):
            if progress is not None:
                progress(f"{name} {setting}")
            with LiveTask(name, setting, size, seed + index) as live:
                steps = [(live.step(), live.mask) for _ in range(frames)]
            clips[setting] = (np.stack([frame for frame, _ in steps]), np.stack([mask for _, mask in steps]))
        image, mask = reference(name, size, seed + len(tasks) + index)
        rendered[name] = PackTask(image, mask, clips)
    versions = {package: version(package) for package in ("mujoco", "dm_control")}
    return Pack(rendered, {"format": FORMAT, "seed": seed, "size": size, "frames": frames, **versions})


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a pack from the command line.

    Returns
    -------
    int
        Exit status: 0, or 1 with the reason on stderr in one line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m samg_fast.envs.clip_pack",
        description="Render a clip pack: frames with ground truth, and a clean reference image of each task.",
        epilog="example: python -m samg_fast.envs.clip_pack samg_fast/samples/demo.npz",
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
