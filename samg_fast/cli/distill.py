"""``samg-fast distill``: train the tiny bundle from scratch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samg_fast.cli.common import extra, progress, say

if TYPE_CHECKING:
    from samg_fast.envs.backgrounds import VideoClip

__all__ = ["distill"]


def distill(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where pool, checkpoints and bundle go.")],
    clips: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of videos to use as backgrounds; subfolders count.")
    ] = None,
    validate: Annotated[
        str,
        typer.Option(
            metavar="NAME,…", help="Clips to watch the training with, and to choose the threshold of `present`."
        ),
    ] = "",
    without: Annotated[
        str,
        typer.Option(metavar="NAME,…", help="Clips that are not opened at all, so that they can measure the result."),
    ] = "",
    groups: Annotated[int, typer.Option(min=25, help="Groups of twenty images to render.")] = 3000,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 8000,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of images per step.")] = 16,
    photos: Annotated[bool, typer.Option(help="Also use photographs out of Debian's and Python's packages.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for training; all cores by default.")] = None,
) -> None:
    """Render a pool of images, train the networks on it, and write the bundle.

    Each of the three steps continues from what it finds in DIR, so the same command resumes an interrupted run.
    The bundle is written to DIR/bundle; open it with `samg-fast demo --bundle DIR/bundle` or `samg_fast.load`.
    """
    with extra("distillation", "distill"):
        import torch

        from samg_fast.distill.bundle import write_bundle
        from samg_fast.distill.photos import fetch_photos
        from samg_fast.distill.pool import build_pool, read_pool
        from samg_fast.distill.train import (
            Settings,
            held_out,
            load_checkpoint,
            presence_threshold,
            train,
            validation_batches,
        )
    from samg_fast.files import output_folder

    folder = output_folder(out / "bundle")
    if threads:
        torch.set_num_threads(threads)
    began = time.monotonic()
    with progress("rendering", groups) as advance:
        build_pool(out / "pool", groups=groups, seed=seed, progress=advance)
    say(f"pool: {groups} groups in {out / 'pool'}")

    unread, watched = ([name for name in names.split(",") if name] for names in (without, validate))
    training, validating = _clips(clips, [*unread, *watched]), _clips(clips, unread, watched)
    pictures = fetch_photos(out / "photos") if photos else []
    say(
        f"backgrounds: {len(training)} clips and {len(pictures)} photographs for training, {len(validating)} clips for "
        "validation, and procedural ones"
    )

    settings = Settings(steps=steps, pairs=pairs, seed=seed)
    with progress("training", steps) as advance:
        pool = list(read_pool(out / "pool"))
        checkpoint = train(
            pool,
            training,
            pictures,
            validating,
            out,
            settings,
            progress=lambda *_: advance(),
        )
    model, settings, step = load_checkpoint(checkpoint)
    fixed = validation_batches(held_out(pool, validating, settings), settings, lessons=["whole"], batches=16)
    present = round(presence_threshold(model, fixed), 3)
    used = f"{groups} groups, {len(training)} clips, {len(pictures)} photographs"
    source = f"samg-fast distill, {step} steps, {used}, seed {seed}; see docs/tiny.md"
    report = write_bundle(model, folder, name="tiny", description=DESCRIPTION, source=source, present=present)
    for parity in report:
        say(f"parity with PyTorch, {parity.output}: largest {parity.largest:.1e}, mean {parity.mean:.1e} of its range")
    say(f"bundle: {folder}, after {(time.monotonic() - began) / 60:.0f} min")


def _clips(folder: Path | None, without: list[str], only: list[str] | None = None) -> list[VideoClip]:
    """Read a folder's clips: some of their images, reduced."""
    from samg_fast.envs.backgrounds import find_clips

    if folder is None or only == []:
        return []
    return find_clips(folder, without=without, only=only, size=(200, 200), stride=30, limit=14)


DESCRIPTION = "small networks trained on rendered robots and primitives; ships with the package"
