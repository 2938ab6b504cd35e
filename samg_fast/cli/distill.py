"""``samg-fast distill``: train the tiny bundle from scratch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from samg_fast.cli.common import extra, progress, say

__all__ = ["distill"]


def distill(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where pool, checkpoints and bundle go.")],
    clips: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of videos to use as backgrounds; subfolders count.")
    ] = None,
    without: Annotated[
        str, typer.Option(metavar="NAME,…", help="Clips to use for validation instead of training, as FOLDER/NAME.")
    ] = "",
    groups: Annotated[int, typer.Option(min=25, help="Groups of six images to render.")] = 1600,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 6900,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of images per step.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for training; all cores by default.")] = None,
) -> None:
    """Render a pool of images, train the networks on it, and write the bundle.

    Each of the three steps continues from what it finds in DIR, so the same command resumes an interrupted run.
    The bundle is written to DIR/bundle; open it with `samg-fast demo --bundle DIR/bundle` or `samg_fast.load`.
    """
    with extra("distillation", "distill"):
        import torch

        from samg_fast.distill.bundle import write_bundle
        from samg_fast.distill.pool import build_pool, read_pool
        from samg_fast.distill.train import Settings, load_checkpoint, train
    from samg_fast.envs.backgrounds import find_clips
    from samg_fast.files import output_folder

    folder = output_folder(out / "bundle")
    if threads:
        torch.set_num_threads(threads)
    began = time.monotonic()
    with progress("rendering", groups) as advance:
        build_pool(out / "pool", groups=groups, seed=seed, progress=advance)
    say(f"pool: {groups} groups in {out / 'pool'}")

    kept_out = {name for name in without.split(",") if name}
    found = find_clips(clips, size=(144, 144), stride=12, limit=45) if clips else []
    training = [clip for clip in found if clip.name not in kept_out]
    validating = [clip for clip in found if clip.name in kept_out]
    say(f"backgrounds: {len(training)} clips for training, {len(validating)} for validation, and procedural ones")

    settings = Settings(steps=steps, pairs=pairs, seed=seed)
    with progress("training", steps) as advance:
        checkpoint = train(
            list(read_pool(out / "pool")), training, validating, out, settings, progress=lambda *_: advance()
        )
    model, settings, step = load_checkpoint(checkpoint)
    source = f"samg-fast distill, {step} steps, {groups} groups, {len(training)} clips, seed {seed}"
    report = write_bundle(model, folder, name="tiny", description=DESCRIPTION, source=source)
    for parity in report:
        say(f"parity with PyTorch, {parity.output}: largest {parity.largest:.1e}, mean {parity.mean:.1e} of its range")
    say(f"bundle: {folder}, after {(time.monotonic() - began) / 60:.0f} min")


DESCRIPTION = "small networks trained on rendered robots and primitives; ships with the package"
