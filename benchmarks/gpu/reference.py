"""The eager reference on a GPU, for `benchmarks.gpu`: timed as PyTorch comes, and exact where masks are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.eager.frame import EagerFrame, EagerSamg
from benchmarks.official.models import Official
from samg_fast.devices import machine
from samg_fast.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Collection

    from benchmarks.official.contenders import EagerContender
    from samg_fast.bench.contenders import Shown

__all__ = ["check_torch", "exact_frames", "open_official"]


def check_torch() -> None:
    """Check that PyTorch can use a GPU.

    Raises
    ------
    BackendError
        It cannot.
    """
    if not torch.cuda.is_available():
        raise BackendError(
            f"the eager reference runs in PyTorch on the GPU, but torch {torch.__version__} finds none; install one "
            "that is built with CUDA, or name the folder of a bundle to measure without the reference"
        )


def open_official(
    sam: str, dino: str, exported: Path | None, precisions: Collection[str], stack: ExitStack, device: str
) -> tuple[EagerSamg, Path]:
    """Make the eager reference on reproducible weights, and the folder of the bundle that is exported of the same.

    Parameters
    ----------
    sam, dino : str
        As `benchmarks.official.models.Official` takes them.
    exported : Path or None
        As `Official.export` takes it.
    precisions : collection of str
        What the bundle is to have beside fp32; what cannot be exported it has not.
    stack : ExitStack
        Removes the bundle, where `exported` is None.
    device : str
        Where the reference runs.

    Raises
    ------
    SamgError
        There is no such model, or it cannot be exported.
    """
    official = Official(sam, dino, machine.cores())
    # Of the host's weights, as the files would be others of a GPU's
    folder = official.export(exported, stack, precisions, batch=None)
    models = official.eager.samg
    return EagerSamg(models.sam, models.dino, device=device), folder


def exact_frames(eager: EagerContender, shown: Sequence[Shown]) -> list[EagerFrame]:
    """Segment every frame in float32 proper, which the GPU's convolutions are not by default; maps go to the host."""
    with _without_tf32():
        frames = (eager.samg.segment(frame, target) for target, each in _tasks(eager, shown) for frame in each.frames)
        return [replace(each, embedding=each.embedding.cpu(), tokens=each.tokens.cpu()) for each in frames]


def _tasks(eager: EagerContender, shown: Sequence[Shown]) -> Iterator[tuple[Any, Shown]]:
    return zip(eager.targets, shown, strict=True)


@contextmanager
def _without_tf32() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before
