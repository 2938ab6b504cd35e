"""Training of the tiny bundle on a few images: scenes, pool, composition, episode, resume, export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

import samg_fast  # noqa: E402
from samg_fast.distill import bundle, compose, episode, losses, scenes, train  # noqa: E402
from samg_fast.distill.model import EMPTY_SLOT, PADDING, Shape, Tiny  # noqa: E402
from samg_fast.distill.pool import Group, build_pool, read_pool  # noqa: E402
from samg_fast.errors import BundleError  # noqa: E402
from support.rendering import needs_rendering  # noqa: E402

# The smallest side at which the masks of all shipped frames reach a cell of the grid, as a bundle's agreement needs.
SMALL = Shape(side=48, stem=8, widths=(8, 16, 16), depths=(1, 1, 1), channels=16, neck=1, tokens=16, heads=2, layers=1)


def square_group(seed: int, side: int = 40, views: int = 3) -> Group:
    """Draw views of a bright square that moves on a floor below a sky, beside a post that does not move."""
    rng = np.random.default_rng(seed)
    kind = np.zeros((views, side, side), np.uint8)
    kind[:, side // 2 :] = 1
    kind[:, 5:30, 2:6] = 2
    body = np.zeros_like(kind)
    colour = rng.integers(150, 255, 3)
    rgb = np.broadcast_to(np.array([30, 60, 90], np.uint8), (*kind.shape, 3)).copy()
    rgb[kind == 2] = 128
    for view in range(views):
        y, x = rng.integers(8, side - 16, 2)
        kind[view, y : y + 12, x : x + 12] = 3
        body[view, y : y + 6, x : x + 12] = 4
        body[view, y + 6 : y + 12, x : x + 12] = 5
        rgb[view][kind[view] == 3] = colour
    return Group("squares", rgb, body, kind)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return [square_group(seed) for seed in range(30)]


def batch_of(groups: list[Group], pairs: int = 3, side: int = SMALL.side) -> dict[str, torch.Tensor]:
    arrays = next(compose.stream(groups, [], pairs=pairs, side=side, seed=(0,)))
    return train.normalise(train.to_tensors(arrays))


def test_held_out_domains_are_in_no_source() -> None:
    names = {source.name for source in scenes._suite_sources()}
    assert not {name for name in names if name.removeprefix("suite/") in scenes.HELD_OUT_DOMAINS}
    assert {"suite/walker", "suite/cheetah"} <= names


@needs_rendering
def test_a_pool_is_reproducible_and_resumes(tmp_path: Path) -> None:
    build_pool(tmp_path / "a", groups=2, views=2, sides=(40,), seed=3, workers=1)
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    victim = sorted(first)[1]
    (tmp_path / "a" / victim).unlink()
    calls: list[None] = []
    build_pool(tmp_path / "a", groups=2, views=2, sides=(40,), seed=3, workers=1, progress=lambda: calls.append(None))
    assert len(calls) == 2
    group, other = read_pool(tmp_path / "a")
    with np.load(tmp_path / "a" / victim) as again:
        assert again["rgb"].shape == (2, 40, 40, 3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == first
    assert group.rgb.dtype == np.uint8
    assert group.side == other.side == 40
    assert ((group.kind == 3).mean((1, 2)) > 0.004).all()


def test_a_pair_shows_one_target_twice(groups: list[Group]) -> None:
    rng = np.random.default_rng(0)
    backgrounds = compose.Backgrounds([], rng, bank=4)
    for group in groups[:10]:
        for example in compose.make_pair(group, backgrounds, rng):
            assert example.frame.shape == (40, 40, 3)
            assert example.frame.dtype == np.uint8
            assert example.target.any()
            assert not (example.target & ~example.moving).any()
            assert not (example.rival & example.target).any()
            assert ((example.body > 0) == example.moving).all()


def test_replacing_the_background_keeps_the_target(groups: list[Group]) -> None:
    rng = np.random.default_rng(1)
    backgrounds = compose.Backgrounds([], rng, bank=4)
    rgb, kind = groups[0].rgb[0], groups[0].kind[0]
    shares = []
    for _ in range(40):
        _, replaced = compose.compose(rgb, kind, backgrounds, rng, clean=False)
        assert not (replaced & (kind == 3)).any()
        shares.append(replaced.mean())
    assert min(shares) == 0.0
    assert max(shares) > 0.5
    clean, replaced = compose.compose(rgb, kind, backgrounds, rng, clean=True)
    assert (clean == rgb).all()
    assert not replaced.any()


def test_empty_slots_do_not_change_the_decoders_output() -> None:
    torch.manual_seed(0)
    model = Tiny(SMALL).eval()
    _, (embedding, coords, labels, mask, has) = bundle.examples(model, 2)
    labels[:, :4] = torch.tensor([1.0, 0.0, 2.0, 3.0])
    labels[:, 4:] = EMPTY_SLOT
    with torch.no_grad():
        expected = model.decoder(embedding, coords[:, :4], labels[:, :4], mask, has)
        found = model.decoder(embedding, coords, labels, mask, has)
        padded = model.decoder(embedding, coords, labels.masked_fill(labels == EMPTY_SLOT, PADDING), mask, has)
    for a, b, c in zip(expected, found, padded, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)  # float32, sums over more terms that are zero
        assert not torch.allclose(a, c, atol=1e-4)


def test_boxes_and_their_fallback() -> None:
    mask = torch.zeros(2, 10, 12, dtype=torch.bool)
    mask[0, 2:5, 3:9] = True
    assert episode.boxes_of(mask).tolist() == [[3, 2, 8, 4], [1, 1, 11, 9]]


def test_prompts_keep_points_and_replace_the_box() -> None:
    prompts = episode.Prompts(2, 6)
    prompts.add(torch.tensor([[1, 2], [3, 4]]), 1)
    prompts.add(torch.tensor([[5, 6], [7, 8]]), 0, torch.tensor([True, False]))
    prompts.set_box(torch.tensor([[0, 0, 9, 9], [0, 0, 0, 0]]), torch.tensor([True, False]))
    prompts.set_box(torch.tensor([[1, 1, 8, 8], [0, 0, 0, 0]]), torch.tensor([True, False]))
    coords, labels = prompts.slots(2.0)
    assert labels.tolist() == [[1, 0, 2, 3, -2, -2], [1, -1, -2, -2, -2, -2]]
    assert coords[0, :4].tolist() == [[2, 4], [10, 12], [2, 2], [16, 16]]
    assert coords[1, :2].tolist() == [[6, 8], [0, 0]]


def test_a_perfect_mask_costs_less() -> None:
    target = torch.zeros(1, 8, 8)
    target[0, 2:6, 2:6] = 1
    right, wrong = (8 * target - 4)[:, None], (4 - 8 * target)[:, None]
    assert losses.mask_loss(right, target) < 0.2 < 1.0 < losses.mask_loss(wrong, target)
    assert losses.true_iou(torch.cat([right, wrong], 1), target).tolist() == [[1.0, 0.0]]


def test_the_worst_cell_costs_less_on_a_distractor() -> None:
    cover, rival = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    cover[0, 0, 0], rival[0, 3, 3] = 1.0, 1.0
    similarity = torch.zeros(1, 4, 4)
    similarity[0, 0, 0] = 1.0
    on_rival, elsewhere = similarity.clone(), similarity.clone()
    on_rival[0, 3, 3], elsewhere[0, 2, 0] = -0.5, -0.5
    assert losses.point_loss(on_rival, cover, rival) < losses.point_loss(elsewhere, cover, rival)


def test_every_network_learns_from_an_episode(groups: list[Group]) -> None:
    torch.manual_seed(0)
    model = Tiny(SMALL)
    outcome = episode.run_episode(model, batch_of(groups))
    assert torch.isfinite(outcome.loss)
    outcome.loss.backward()
    still = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_training_resumes_and_becomes_a_bundle(tmp_path: Path, groups: list[Group]) -> None:
    settings = train.Settings(steps=30, pairs=3, warmup=2, rate=4e-3, average=0.8, shape=SMALL)
    seen: list[tuple[int, float]] = []
    train.train(
        groups, [], [], tmp_path, replace(settings, steps=6), progress=lambda s, t: seen.append((s, t["decode"]))
    )
    checkpoint = train.train(
        groups, [], [], tmp_path, settings, progress=lambda s, t: seen.append((s, t["decode"])), save_every=10
    )
    assert [step for step, _ in seen] == list(range(1, 31))
    assert seen[-1][1] < seen[0][1]

    model, restored, step = train.load_checkpoint(checkpoint)
    assert (restored, step) == (settings, 30)
    folder = tmp_path / "bundle"
    report = bundle.write_bundle(model, folder, name="small", description="a test", source="a test")
    assert {parity.output for parity in report} == {"embedding", "features", "low_res_masks", "iou"}
    with samg_fast.load(folder, backend="onnxruntime") as segmenter:
        group = groups[0]
        target = segmenter.identify(group.rgb[0], group.kind[0] == 3)
        result = segmenter.segment(group.rgb[1], target)
    assert result.mask.shape == (40, 40)


def test_a_bundle_that_differs_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tiny(SMALL).eval()
    bundle.write_bundle(model, tmp_path, name="small", description="a test", source="a test")
    with torch.no_grad():
        model.encoder.features.bias += 0.5
    with pytest.raises(BundleError, match="features: ONNX differs from PyTorch"):
        bundle.check_parity(model, tmp_path)
