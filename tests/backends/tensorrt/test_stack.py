"""TensorRT end to end, on fakes of TensorRT and cuda-core: engines, cache, frames and CUDA graphs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast.results import Segmentation
from support import fake_cuda
from support.fake_cuda import Machine, OnGpu, Stream
from support.host_gpu import noise
from support.synthetic_bundle import picture
from support.tensorrt import on_fakes  # noqa: F401 (a fixture)


def machine() -> Machine:
    return fake_cuda._current()


def same(found: Any, wanted: Segmentation) -> None:
    np.testing.assert_array_equal(found.mask, wanted.mask)
    assert found.box == wanted.box
    assert found.score == pytest.approx(wanted.score, abs=1e-5)


def test_from_a_name_to_masks(
    backend: str, bundle_folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Engines are built once and give the CPU's masks, for any batch size, on the host and on the GPU."""
    image, mask = picture(60, 80)
    frames = noise(5, 50, 70)
    with samg_fast.load(bundle_folder, backend="onnxruntime", device="cpu", threads=1) as plain:
        wanted = plain.segment_batch(frames, plain.identify(image, mask, points=[(40, 30)]))
    caplog.set_level(logging.INFO, "samg_fast")
    for turn in range(2):
        caplog.clear()
        with samg_fast.load(bundle_folder, backend=backend, batches=(1, 3)) as segmenter:
            assert segmenter.device == "cuda:0"
            assert f"{backend} " in segmenter.describe()
            target = segmenter.identify(image, mask, points=[(40, 30)])
            for _ in range(2):
                for frame, expected in zip(frames, wanted, strict=True):
                    same(segmenter.segment(frame, target), expected)
                for found, expected in zip(segmenter.segment_batch(frames, target), wanted, strict=True):
                    same(found, expected)
            caller = Stream(machine())
            out = segmenter.segment_batch(OnGpu(frames[:3]), target, stream=caller)
            caller.sync()
            np.testing.assert_array_equal(out.mask.array, [each.mask for each in wanted[:3]])
            machine().log.clear()
            segmenter.segment(frames[0], target)
            assert "engine" not in machine().log, "a frame is one graph"
            assert "graph" in machine().log
        engines = sorted((tmp_path / "cache" / "samg-fast" / "engines").rglob("*.engine"))
        if turn == 0:
            first = {engine: engine.stat().st_mtime_ns for engine in engines}
            assert len(first) == 3
    assert {engine: engine.stat().st_mtime_ns for engine in engines} == first


def test_auto_picks_it(backend: str, bundle_folder: Path) -> None:
    with samg_fast.load(bundle_folder, batches=(1,)) as segmenter:
        assert segmenter.backend == backend
    with samg_fast.load(bundle_folder, device="cpu") as segmenter:
        assert segmenter.device == "cpu"
