"""The pool: groups of rendered images on disk, rendered once and read by every training run.

A file holds one group: images of one scene with the same colours and lights. Files appear whole or not at all, and each
has its own seed, so an interrupted build resumes where it stopped and gives the same pool.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.envs.rendering import ensure_gl
from samg_fast.files import replacing

from .scenes import pack, render_group, sources

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Images of one scene: ``rgb`` (V, H, W, 3), ``body`` and ``kind`` (V, H, W), all uint8, and their source."""

    source: str
    rgb: NDArray[np.uint8]
    body: NDArray[np.uint8]
    kind: NDArray[np.uint8]

    @property
    def side(self) -> int:
        """Height and width of the images in pixels."""
        return int(self.rgb.shape[1])


def _shard(folder: Path, index: int) -> Path:
    return folder / f"group-{index:06d}.npz"


def _render(arguments: tuple[str, int, int, int, tuple[int, ...]]) -> None:
    folder, seed, index, views, sides = arguments
    path = _shard(Path(folder), index)
    if path.exists():
        return
    rng = np.random.default_rng([seed, index])
    choices = sources()
    weights = np.array([source.weight for source in choices])
    side = int(sides[rng.integers(len(sides))])
    for _ in range(20):
        source = choices[rng.choice(len(choices), p=weights)]
        try:
            images = render_group(source, rng, views=views, side=side)
        # A random model may not compile, and a state may diverge
        except (ValueError, RuntimeError) as error:
            logger.info("group %d: %s gave nothing (%s)", index, source.name, error)
            continue
        if images is not None:
            arrays: dict[str, Any] = {"source": np.array(source.name), **pack(images)}
            with replacing(path) as temporary:
                np.savez_compressed(temporary, **arrays)
            return
    raise RuntimeError(f"group {index}: twenty scenes in a row could not be rendered")


def build_pool(
    folder: Path,
    *,
    groups: int,
    views: int = 20,
    sides: tuple[int, ...] = (84, 84, 84, 128),
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> None:
    """Render ``groups`` groups of ``views`` images into ``folder``; existing ones are kept.

    Parameters
    ----------
    folder : path
    groups, views : int
    sides : tuple of int
        Image sides in pixels; one is drawn for each group, all entries with equal probability.
    seed : int
    workers : int, optional
        Number of processes; by default one per core.
    progress : callable, optional
        Called once for each finished group.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ensure_gl()
    jobs = [(str(folder), seed, index, views, sides) for index in range(groups) if not _shard(folder, index).exists()]
    done = progress or (lambda: None)
    for _ in range(groups - len(jobs)):
        done()
    context = multiprocessing.get_context("spawn")  # an OpenGL context does not survive a fork
    with context.Pool(workers or os.cpu_count(), maxtasksperchild=100) as processes:
        for _ in processes.imap_unordered(_render, jobs, chunksize=1):
            done()


def read_pool(folder: Path, known: dict[Path, Group] | None = None) -> Iterator[Group]:
    """Yield the groups of a pool in order; ``known`` caches those that were read."""
    known = {} if known is None else known
    for path in sorted(folder.glob("group-*.npz")):
        if path not in known:
            with np.load(path) as arrays:
                known[path] = Group(str(arrays["source"]), arrays["rgb"], arrays["body"], arrays["kind"])
        yield known[path]
