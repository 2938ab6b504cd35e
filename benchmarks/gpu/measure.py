"""The measuring of `benchmarks.gpu`: contenders that take turns, frames on the GPU and on the host, and their masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.official.contenders import SegmenterContender
from samg_fast.bench.contenders import Shown, rounds_in_turn
from samg_fast.metrics import iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.official.contenders import Contender
    from samg_fast.checks import Mask
    from samg_fast.devices.base import Array
    from samg_fast.devices.cuda import Cuda

__all__ = ["Placed", "Times", "identify", "likeness", "masks", "measure", "place", "resized"]


@dataclass(frozen=True)
class Placed:
    """The frames of one task, on the host and in a GPU's memory.

    Parameters
    ----------
    shown : Shown
        On the host.
    frames : list of (H, W, 3) uint8 arrays of the GPU
        The same.
    batch : (B, H, W, 3) uint8 array of the GPU
        The same over and over.
    """

    shown: Shown
    frames: list[Array]
    batch: Array


@dataclass
class Times:
    """Milliseconds of one contender, one entry per call.

    Attributes
    ----------
    on_gpu : list of float
        Of a frame in the GPU's memory: from the call until its result is there.
    host : list of float
        Of the same calls: until they return.
    from_host : list of float
        Of a frame in the host's memory, to its masked observation there.
    batch : list of float
        Of a whole batch in the GPU's memory.
    rounds : dict of str to list of float
        Median of each of these in each round.
    """

    on_gpu: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    from_host: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    rounds: dict[str, list[float]] = field(default_factory=dict)


def resized(shown: Shown, side: int) -> Shown:
    """Bring frames and masks to a side in pixels, so that the same scenes are seen larger or smaller."""
    if shown.reference.shape[:2] == (side, side):
        return shown

    def at_side(images: NDArray[Any], how: Image.Resampling) -> NDArray[Any]:
        return np.stack([np.asarray(Image.fromarray(each).resize((side, side), how)) for each in images])

    smooth, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    return Shown(
        shown.task,
        at_side(shown.reference[None], smooth)[0],
        at_side(shown.reference_mask[None], nearest)[0],
        at_side(shown.frames, smooth),
        at_side(shown.truths, nearest),
    )


def place(cuda: Cuda, shown: Shown, batch: int) -> Placed:
    """Copy frames into a GPU's memory; a batch of them has the first ones again where there are too few."""
    with cuda.use():
        many = np.resize(shown.frames, (batch, *shown.frames.shape[1:]))
        return Placed(shown, [cuda.upload(frame) for frame in shown.frames], cuda.upload(many))


def identify(contender: Contender, cuda: Cuda, work: Sequence[Placed], warm_up: int) -> None:
    """Show a contender every task, and let it segment all frames in every way that is timed, some times over."""
    for each in work:
        contender.identify(each.shown.reference, each.shown.reference_mask)
    for _ in range(warm_up):
        if isinstance(contender, SegmenterContender):
            masks(contender, cuda, work)
            continue
        for task, each in enumerate(work):
            for frame in each.shown.frames:
                contender.frame(task, frame)


def measure(
    contenders: Mapping[str, Contender],
    cuda: Cuda,
    work: Sequence[Placed],
    *,
    rounds: int,
    clock: Callable[[], float] = perf_counter,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Let contenders take turns on the same frames; each has gone through `identify`.

    Parameters
    ----------
    contenders : mapping of str to Contender
        Those that are segmenters get frames on the GPU and batches too.
    cuda : Cuda
        The caller's side: frames are in its memory, and its stream is the caller's.
    work : sequence of Placed
        The frames of a round.
    rounds : int
        How often each sees all of them; every round starts with another contender.
    clock : callable
        Returns seconds.
    advance : callable
        Called after each contender's part of a round.

    Returns
    -------
    dict of str to Times
        By contender.
    """
    times = {name: Times() for name in contenders}
    for order in rounds_in_turn(list(contenders), rounds):
        for name in order:
            found = times[name]
            kinds = {kind: len(getattr(found, kind)) for kind in ("on_gpu", "host", "from_host", "batch")}
            for task, each in enumerate(work):
                _time_task(contenders[name], cuda, task, each, found, clock)
            for kind, before in kinds.items():
                values = getattr(found, kind)[before:]
                if values:
                    found.rounds.setdefault(kind, []).append(float(np.median(values)))
            advance()
    return times


def _time_task(
    contender: Contender, cuda: Cuda, task: int, work: Placed, times: Times, clock: Callable[[], float]
) -> None:
    """Time every frame of a task, then a batch; the first call of each kind has another target, and does not count."""
    contender.frame(task, work.shown.frames[0])
    for frame in work.shown.frames:
        started = clock()
        contender.frame(task, frame)
        times.from_host.append((clock() - started) * 1e3)
    if not isinstance(contender, SegmenterContender):
        return
    segment, segment_batch = contender.segmenter.segment, contender.segmenter.segment_batch
    one_more = {"target": contender.targets[task], "stream": cuda.stream}
    _timed(partial(segment, work.frames[0], **one_more), cuda, clock)
    for there in work.frames:
        host, on_gpu = _timed(partial(segment, there, **one_more), cuda, clock)
        times.host.append(host)
        times.on_gpu.append(on_gpu)
    batch = partial(segment_batch, work.batch, **one_more)
    _timed(batch, cuda, clock)
    times.batch.append(_timed(batch, cuda, clock)[1])


def _timed(call: Callable[[], Any], cuda: Cuda, clock: Callable[[], float]) -> tuple[float, float]:
    """Return the milliseconds until a call returns, and until what it has queued on the caller's stream is done."""
    started = clock()
    out = call()
    returned = clock()
    cuda.synchronize()
    done = clock()
    del out  # only now, as freeing it is no part of the frame
    return (returned - started) * 1e3, (done - started) * 1e3


def masks(contender: SegmenterContender, cuda: Cuda, work: Sequence[Placed]) -> list[tuple[int, Mask]]:
    """Segment every frame in each way that is timed: on the GPU, on the host, and in a batch.

    Returns
    -------
    list of (int, (H, W) bool array)
        A frame's number, counted through all tasks, and its mask.
    """
    found: list[tuple[int, Mask]] = []
    first = 0
    for target, each in zip(contender.targets, work, strict=True):
        segmenter, frames = contender.segmenter, each.shown.frames
        with cuda.use():
            on_gpu = [cuda.download(segmenter.segment(there, target).mask) for there in each.frames]
            batch = cuda.download(segmenter.segment_batch(each.batch, target, stream=None).mask)
        on_host = [segmenter.segment(frame, target).mask for frame in frames]
        for way in (on_gpu, on_host, batch[: len(frames)]):
            found += enumerate(way, first)
        first += len(frames)
    return found


def likeness(found: Sequence[tuple[int, Mask]], wanted: Sequence[Mask]) -> dict[str, float]:
    """Return the mean and the lowest IoU of masks, as `masks` gives them, with those wanted of every frame."""
    values = [iou(mask, wanted[number]) for number, mask in found]
    return {"mean": float(np.mean(values)), "lowest": min(values)}
