"""Training of the tiny bundle on a few images: scenes, pool, composition, episode, resume, export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

import samg_fast  # noqa: E402
from samg_fast.distill import bundle, compose, episode, losses, photos, scenes, train  # noqa: E402
from samg_fast.distill.backgrounds import Backgrounds  # noqa: E402
from samg_fast.distill.model import EMPTY_SLOT, NEGATIVE, Shape, Tiny  # noqa: E402
from samg_fast.distill.pool import Group, build_pool, read_pool  # noqa: E402
from samg_fast.errors import BundleError  # noqa: E402
from support.rendering import needs_rendering  # noqa: E402

# The smallest side at which the masks of all shipped frames reach a cell of the grid, as a bundle's agreement needs.
SMALL = Shape(side=48, widths=(8, 16, 16, 16), depths=(1, 1, 1, 1), channels=16, detail=16, decoder=(8, 16))


def square_group(seed: int, side: int = 40, views: int = 3, source: str = "squares") -> Group:
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
    return Group(source, rgb, body, kind)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return [square_group(seed, source=f"squares {seed % 3}") for seed in range(30)]


def batch_of(groups: list[Group], pairs: int = 3, side: int = SMALL.side) -> dict[str, torch.Tensor]:
    material, lessons = compose.Material(groups), compose.Lessons()
    arrays = next(compose.stream(material, lessons, pairs=pairs, side=side, seed=(0,)))
    return train.normalise(train.to_tensors(arrays))


def composer(groups: list[Group], seed: int = 0, **options: float) -> compose.Composer:
    rng = np.random.default_rng(seed)
    return compose.Composer(groups, [1.0] * len(groups), [], [], compose.Lessons(), rng, **options)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("lesson", ["whole", "part", "half", "scenery", "absent"])
def test_what_a_pair_shows(groups: list[Group], lesson: compose.Lesson) -> None:
    pairs = composer(groups)
    for _ in range(12):
        one, other = pairs.pair(lesson)
        for example in (one, other):
            assert example.frame.shape == (40, 40, 3)
            assert example.frame.dtype == np.uint8
            assert example.shown.any()
            assert not (example.rival & example.target).any()
            assert not ((example.body > 0) & ~example.moving).any()
            if lesson == "absent":
                assert not example.target.any()
                assert not example.body.any()
            else:
                assert (example.target == example.shown).all()
                assert (example.target & example.moving).any() == (lesson != "scenery")
        assert (one.scene == other.scene) == (lesson != "absent")
        if lesson in ("part", "half"):
            assert (one.moving & ~one.shown).any()
            assert (one.rival & one.moving & ~one.shown).any()


def test_what_is_pasted_is_a_rival_and_hides_no_more_than_it_says(groups: list[Group]) -> None:
    pairs, beside = composer(groups, rivals=1.0, clean=(0.0, 0.0)), 0
    for _ in range(30):
        for example in pairs.pair("whole"):
            others = example.moving & ~example.target
            assert (example.rival[others]).all()
            assert example.target.sum() >= 0.6 * 0.6 * 144  # two things, each in front of two fifths at most
            beside += bool(others.sum() > 20)
    assert beside > 20


def test_clean_images_stay_as_they_were_rendered() -> None:
    group = square_group(0)
    pairs = composer([group, square_group(1, source="other")], clean=(1.0, 1.0))
    same = []
    for _ in range(20):
        for example in pairs.pair("whole"):
            views = [*group.rgb, *group.rgb[:, :, ::-1], *pairs.groups[1].rgb, *pairs.groups[1].rgb[:, :, ::-1]]
            same.append(any((example.frame == view).all() for view in views))
    assert 0.6 < np.mean(same) <= 1.0  # in the others something was pasted


def test_a_target_is_put_elsewhere_with_all_that_is_known_of_it() -> None:
    """Colours, mask and bodies move together, at another size, and most of the target stays in the image."""
    rng, group = np.random.default_rng(0), square_group(0)
    view = compose.View(group.rgb[0], group.kind[0], np.where(group.kind[0] == 3, group.body[0], 0).astype(np.uint8))
    half = view.moves & (np.arange(40)[:, None] < np.nonzero(view.moves)[0].mean())
    places, sizes = set(), set()
    for _ in range(30):
        moved, shown, target = compose._elsewhere(view, view.moves, half, rng)
        assert (shown == moved.moves).all()
        assert (target <= shown).all()
        assert target.sum() >= 0.6 * half.sum()
        assert set(moved.body[shown]) == set(view.body[view.moves])
        assert not moved.body[~shown].any()
        # The square is brighter than what is around it, but for its rim, which is resampled
        assert moved.rgb[shown].mean() > 0.75 * view.rgb[view.moves].mean()
        rows, columns = np.nonzero(shown)
        places.add((int(rows.mean()), int(columns.mean())))
        sizes.add(int(shown.sum()))
    assert len(places) > 20
    assert max(sizes) > 1.3 * min(sizes)


def test_nothing_of_the_own_scene_is_a_rival() -> None:
    groups = [square_group(seed, source="own" if seed % 2 else "other") for seed in range(6)]
    pairs = composer(groups)
    assert {pairs._group(unlike=groups[0]).source for _ in range(50)} == {"own"}


def test_backgrounds_vary_and_name_the_things_in_them() -> None:
    rng = np.random.default_rng(0)
    still = compose.VideoClip("grey", np.full((1, 50, 60, 3), 128, np.uint8))
    thing = np.zeros((40, 40), bool)
    thing[10:30, 10:30] = True
    backgrounds = Backgrounds([still], [still], rng, bank=2)
    seen = [backgrounds.draw(40, lambda: (np.full((40, 40, 3), 9, np.uint8), thing)) for _ in range(60)]
    assert all(image.shape == (40, 40, 3) and objects.shape == (40, 40) for image, objects in seen)
    shares = [objects.mean() for _, objects in seen]
    assert min(shares) == 0.0
    assert max(shares) > 0.1
    assert len({image.tobytes() for image, _ in seen}) > 30


def test_photographs_are_found_once_each_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, package = np.random.default_rng(0), tmp_path / "package"
    package.mkdir()
    coarse = rng.integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    for name, image in (("one.png", coarse[0]), ("two.jpg", coarse[1])):
        Image.fromarray(image).resize((400, 300), Image.Resampling.NEAREST).save(package / name)
    Image.fromarray(coarse[0]).resize((800, 600), Image.Resampling.NEAREST).save(package / "one-large.png")
    Image.fromarray(coarse[0]).save(package / "too-small.png")
    (package / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(photos, "DEBIAN_PACKAGES", ("no-such-package",))
    monkeypatch.setattr(photos, "PYTHON_PACKAGES", ("pictures", "not_installed"))
    monkeypatch.setattr(photos, "_unpacked", lambda name, folder: None)
    monkeypatch.setattr(photos, "_installed", lambda name: package if name == "pictures" else None)
    found = photos.fetch_photos(tmp_path / "photos")
    assert [clip.frames.shape for clip in found] == [(1, 300, 400, 3), (1, 320, 427, 3)]  # the largest file first
    monkeypatch.setattr(photos, "_installed", lambda name: None)
    again = photos.fetch_photos(tmp_path / "photos")
    assert all((a.frames == b.frames).all() for a, b in zip(found, again, strict=True))


def test_empty_slots_do_not_change_the_decoders_output() -> None:
    torch.manual_seed(0)
    model = Tiny(SMALL).eval()
    _, (embedding, coords, labels, mask, has, target) = bundle.examples(model, 2)
    labels[:, :4] = torch.tensor([1.0, 0.0, 2.0, 3.0])
    labels[:, 4:] = EMPTY_SLOT
    with torch.no_grad():
        expected = model.decoder(embedding, coords[:, :4], labels[:, :4], mask, has, target)
        found = model.decoder(embedding, coords, labels, mask, has, target)
        other = model.decoder(embedding, coords, labels.masked_fill(labels == EMPTY_SLOT, NEGATIVE), mask, has, target)
    for a, b, c in zip(expected, found, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)  # float32, sums over more terms that are zero
        assert not torch.allclose(a, c, atol=1e-4)


def test_every_input_of_the_decoder_counts() -> None:
    torch.manual_seed(0)
    model = Tiny(SMALL).eval()
    _, (embedding, coords, labels, mask, has, target) = bundle.examples(model, 2)
    labels[:] = EMPTY_SLOT
    labels[:, :4] = torch.tensor([1.0, 0.0, 2.0, 3.0])
    has[:] = 1
    with torch.no_grad():
        expected = model.decoder(embedding, coords, labels, mask, has, target)
        for changed in (
            (embedding, coords + 9, labels, mask, has, target),
            (embedding, coords, labels.masked_fill(labels > 1, EMPTY_SLOT), mask, has, target),
            (embedding, coords, labels, -mask, has, target),
            (embedding, coords, labels, mask, 0 * has, target),
            (embedding, coords, labels, mask, has, 0 * target),
        ):
            for a, b in zip(expected, model.decoder(*changed), strict=True):
                assert not torch.allclose(a, b, atol=1e-5)


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


def test_a_target_costs_less_where_it_is_the_most_similar_one() -> None:
    features = torch.zeros(3, 4, 2, 2)
    for image in range(3):
        features[image, image, 0, 0] = 1.0
    targets, scene, present = torch.eye(4)[:3], torch.tensor([0, 1, 2]), torch.tensor([True, True, True])
    right = losses.contrast_loss(targets, features, scene, present)
    wrong = losses.contrast_loss(targets.roll(1, 0), features, scene, present)
    assert right < 0.01 < 1.0 < wrong
    nobody = losses.contrast_loss(targets.roll(1, 0), features, torch.zeros(3), present)
    assert nobody == 0  # all of one scene: none is the other's rival
    assert losses.contrast_loss(targets.roll(1, 0), features, scene, ~present) == 0


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
        groups, [], [], [], tmp_path, replace(settings, steps=6), progress=lambda s, t: seen.append((s, t["decode"]))
    )
    checkpoint = train.train(
        groups, [], [], [], tmp_path, settings, progress=lambda s, t: seen.append((s, t["decode"])), save_every=10
    )
    assert [step for step, _ in seen] == list(range(1, 31))
    assert seen[-1][1] < seen[0][1]

    model, restored, step = train.load_checkpoint(checkpoint)
    assert (restored, step) == (settings, 30)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [6, 10, 20, 30]
    measures = {"whole", "whole1", "whole2", "part", "half", "scenery", "rival", "auc"}
    assert all(0 <= line[f"validation/{name}"] <= 1 for line in lines for name in measures)
    fixed = train.validation_batches(train.held_out(groups, [], settings), settings)
    present = train.presence_threshold(model, fixed)
    assert 0 <= present <= 1
    folder = tmp_path / "bundle"
    report = bundle.write_bundle(model, folder, name="small", description="a test", source="a test", present=present)
    assert {parity.output for parity in report} == {"embedding", "features", "low_res_masks", "iou"}
    with samg_fast.load(folder, backend="onnxruntime") as segmenter:
        group = groups[0]
        target = segmenter.identify(group.rgb[0], group.kind[0] == 3)
        result = segmenter.segment(group.rgb[1], target)
    assert result.mask.shape == (40, 40)
    assert result.threshold == present


def test_a_bundle_that_differs_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tiny(SMALL).eval()
    bundle.write_bundle(model, tmp_path, name="small", description="a test", source="a test")
    with torch.no_grad():
        model.encoder.semantic.bias += 0.5
    with pytest.raises(BundleError, match="ONNX differs from PyTorch"):
        bundle.check_parity(model, tmp_path)
