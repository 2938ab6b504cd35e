"""The memory of batches: it does not grow with the number of batch sizes that come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from support.paths import ROOT
from support.synthetic_bundle import picture

EPISODES = """
import sys
import numpy as np, samg_fast
from samg_fast.samples import load_pack

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

walker = load_pack().tasks["walker_walk"]
frames = np.concatenate([walker.settings["video_hard"][0]] * 2)
with samg_fast.load("tiny", backend=sys.argv[1], precision="fp32", device="cpu", threads=2) as segmenter:
    target = segmenter.identify(walker.reference, walker.reference_mask)
    for _ in range(2):
        segmenter.segment_batch(frames, target)
    before = resident()
    for count in (*range(1, 33), *range(31, 0, -3)):
        segmenter.segment_batch(frames[:count], target)
    print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says in /proc how much memory is used")
def test_episodes_of_unequal_length(backend: str) -> None:
    """In a process of its own, whose memory nothing else moves; a size of its own took some 60 MiB."""
    done = subprocess.run([sys.executable, "-c", EPISODES, backend], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150


def test_a_batch_is_divided_into_few_sizes(bundle_folder: Path) -> None:
    """Every division gives what frames give one by one, and the same few graphs serve all of them."""
    pytest.importorskip("openvino")
    image, mask = picture(40, 50)
    frames = np.random.default_rng(0).integers(0, 256, (40, 40, 50, 3), np.uint8)
    with samg_fast.load(bundle_folder, backend="openvino", threads=3) as segmenter:
        target = segmenter.identify(image, mask)
        wanted = [segmenter.segment(frame, target) for frame in frames]
        for count in range(1, 41):
            for index, found in enumerate(segmenter.segment_batch(frames[:count], target)):
                assert (found.mask != wanted[index].mask).mean() < 0.01  # float32 rounding in another order
                assert found.score == pytest.approx(wanted[index].score, abs=1e-4)
        compiled: Any = [network._compiled for network in segmenter._networks.opened.values()]
        assert all(len({shapes[0][1][0] for shapes, _ in each}) <= 4 for each in compiled)


def test_a_graph_with_large_weights_is_compiled_for_one_image_at_a_time(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each compiled copy holds its own weights."""
    openvino = pytest.importorskip("samg_fast.backends.openvino")
    monkeypatch.setattr(openvino, "_SMALL", 0)
    image, mask = picture(40, 50)
    with samg_fast.load(bundle_folder, backend="openvino", threads=2) as segmenter:
        target = segmenter.identify(image, mask)
        assert len(segmenter.segment_batch(np.stack([image] * 9), target)) == 9
        for network in segmenter._networks.opened.values():
            compiled: Any = network
            assert {shapes[0][1][0] for shapes, _ in compiled._compiled} == {1}
