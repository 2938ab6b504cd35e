"""The bundles that ship: which there are, how large, and what they find in the clips that ship."""

from __future__ import annotations

import numpy as np
import pytest

import samg_fast
from samg_fast.bundle import Bundle
from samg_fast.bundle.zoo import BUNDLES
from samg_fast.envs.tasks import ADROIT, EIGHT
from samg_fast.errors import BundleError
from samg_fast.metrics import iou
from samg_fast.samples import load_pack

FITTED = sorted((*EIGHT, *ADROIT))


def test_one_for_each_task_of_the_paper_and_tiny_first() -> None:
    shipped = [info for info in samg_fast.bundles() if info.shipped]
    assert [info.name for info in shipped] == ["tiny", *FITTED]
    assert [info.name for info in shipped if info.fitted] == FITTED


@pytest.mark.parametrize("name", FITTED)
def test_they_are_small_and_state_what_they_are(name: str) -> None:
    folder = BUNDLES / name
    manifest = Bundle.open(folder).fitted
    assert manifest is not None
    assert manifest.name == name
    assert manifest.present is not None
    assert manifest.agreement["bf16"] > 0.99
    assert sorted(each.name for each in folder.iterdir()) == ["manifest.json", manifest.network.file]
    assert (folder / manifest.network.file).stat().st_size <= 600_000


@pytest.mark.parametrize("name", EIGHT)
def test_they_find_their_target_without_being_shown(name: str) -> None:
    """On clean frames and on backgrounds that move; docs/fit.md has figures on clips that they were not made with."""
    task = load_pack().tasks[name]
    with samg_fast.load(name, threads=1) as segmenter:
        assert not segmenter.needs_target
        for setting in ("original", "video_hard"):
            frames, masks = task.settings[setting]
            found = [segmenter.segment(frame).mask for frame in frames[::4]]
            mean = np.mean([iou(mask, truth) for mask, truth in zip(found, masks[::4], strict=True)])
            assert mean > 0.8, setting  # measured: 0.85 and more


def test_another_target_is_refused() -> None:
    walker = load_pack().tasks["walker_walk"]
    with samg_fast.load("tiny", threads=1) as tiny, samg_fast.load("walker_walk", threads=1) as fitted:
        target = tiny.identify(walker.reference, walker.reference_mask)
        with pytest.raises(BundleError, match="is another one than bundle walker_walk is fitted to: leave it out"):
            fitted.segment(walker.reference, target)
