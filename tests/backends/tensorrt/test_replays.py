"""Frames of several sizes in turn: replaying a CUDA graph gives the same result, whatever ran in between.

In TensorRT, the behaviour of a graph is undefined once the execution context that it was captured from has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samg_fast
from samg_fast.backends.tensorrt import dialect
from samg_fast.metrics import iou
from samg_fast.samples import load_pack
from support import fake_cuda
from support.gpu_rigs import ALIKE, need
from support.tensorrt import on_fakes  # noqa: F401 (a fixture)

Frames = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Return one frame with a real target, in three sizes."""
    frame = load_pack().tasks["walker_walk"].settings["video_hard"][0][0]
    return [frame, frame.repeat(2, axis=0).repeat(2, axis=1), np.pad(frame, ((0, 16), (8, 0), (0, 0)))]


@pytest.fixture(scope="module")
def wanted(frames: Frames) -> list[NDArray[np.bool_]]:
    with samg_fast.load("tiny", backend="onnxruntime", device="cpu", threads=1) as plain:
        return [plain.segment(frame, target_of(plain)).mask for frame in frames]


def target_of(segmenter: samg_fast.Segmenter) -> samg_fast.Target:
    task = load_pack().tasks["walker_walk"]
    return segmenter.identify(task.reference, task.reference_mask)


def in_turn(name: str, frames: Frames, wanted: list[NDArray[np.bool_]]) -> None:
    """Capture a graph for every size, replay them in turn, and call the networks in between as `identify` does."""
    with samg_fast.load("tiny", backend=name, device="cuda", batches=(1,)) as segmenter:
        target = target_of(segmenter)
        for order in ((0, 1, 2), (0, 1, 2), (2, 0, 1), (1, 1, 0), (2, 1, 0)):
            for index in order:
                assert iou(segmenter.segment(frames[index], target).mask, wanted[index]) >= ALIKE
            again = target_of(segmenter)
            assert iou(segmenter.segment(frames[0], again).mask, wanted[0]) >= ALIKE


def test_on_the_fake(
    backend: str,
    frames: Frames,
    wanted: list[NDArray[np.bool_]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No captured context is changed afterwards, and all sizes share the few contexts."""
    kind = dialect.load(backend).library.IExecutionContext
    execute: Callable[[Any, int], bool] = kind.execute_async_v3
    captured = []

    def state(context: Any) -> Any:
        return dict(context._addresses), context._memory, dict(context._shapes), context._profile

    def watched(context: Any, stream: int) -> bool:
        if fake_cuda._current().stream(stream).captured_in is not None:
            captured.append((context, state(context)))
        return execute(context, stream)

    monkeypatch.setattr(kind, "execute_async_v3", watched)
    in_turn(backend, frames, wanted)
    assert len(captured) == 3 * (1 + 3)  # for every size, the encoder and three decodes
    # The encoder's, and the decoder's without and with a mask: the arrays keep their addresses
    assert len({id(context) for context, _ in captured}) == 3
    for context, before in captured:
        assert state(context) == before


@pytest.mark.gpu
@pytest.mark.parametrize("library", dialect.MODULES)
def test_on_a_gpu(
    library: str, frames: Frames, wanted: list[NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need(library)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_turn(library, frames, wanted)
