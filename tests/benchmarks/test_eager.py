"""The eager reference against what the official code gave on the same weights, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the eager reference needs the extra export")

from benchmarks.eager import adapt  # noqa: E402
from benchmarks.eager.frame import EagerSamg, EagerTarget, best, box_of, max_point, min_point  # noqa: E402
from benchmarks.eager.predictor import EagerPrompt  # noqa: E402
from benchmarks.eager.weights import fill, filled, write_checkpoint  # noqa: E402
from samg_fast.errors import InputError  # noqa: E402
from samg_fast.export import dinov2  # noqa: E402
from samg_fast.export.checkpoints import load_state_dict  # noqa: E402
from samg_fast.export.dinov2 import DinoV2  # noqa: E402
from samg_fast.pipeline.adapt import fit_mask_weights, mask_loss  # noqa: E402
from support.golden_frames import GOLDEN, TASKS, Turn, assert_close, check_frame  # noqa: E402

FEATURE = 1e-5
"""Of a feature's or a map's largest value: float32 sums in another order give about 1e-6."""


@pytest.fixture(scope="module")
def eager() -> EagerSamg:
    """Return the models of the golden files."""
    torch.set_num_threads(2)
    return EagerSamg("l0", "vits14")


@pytest.fixture(scope="module", params=TASKS)
def golden(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open a golden file."""
    with np.load(GOLDEN / f"samg_l0_dinov2_vits14_{request.param}.npz") as arrays:
        yield arrays


@pytest.fixture(scope="module")
def target(eager: EagerSamg, golden: Any) -> EagerTarget:
    """Identify what the file was made with."""
    parts = [golden[name] for name in sorted(golden.files) if name.startswith("extra_mask_image")]
    return eager.identify(golden["reference_image"], golden["reference_mask_image"], golden["extra_points_xy"], parts)


def test_features(target: EagerTarget, golden: Any) -> None:
    assert_close(target.sam, golden["target_sam"], FEATURE)
    assert_close(target.dino, golden["target_dino"], FEATURE)
    for got, key in ((target.parts_sam, "parts_sam"), (target.parts_dino, "parts_dino")):
        wanted = golden.get(key, ())
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_close(one[0], other, FEATURE)
    assert target.points == len(golden["extra_points_xy"])
    np.testing.assert_allclose(target.weights, golden["mask_weights"], atol=1e-6)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["clean0", "blob0", pytest.param("clean1", marks=SLOW), pytest.param("blob1", marks=SLOW)]
)
def test_frame(eager: EagerSamg, golden: Any, target: EagerTarget, name: str) -> None:
    image = golden[f"frame.{name}.image"]
    out = eager.segment(image, target)
    turns = [
        Turn(asked.points, asked.labels, asked.box, got.iou, got.low_res, got.masks.sum(axis=(1, 2)))
        for asked, got in zip(out.prompts, out.decodes, strict=True)
    ]
    masked = out.masked.transpose(1, 2, 0)
    check_frame(golden, name, out.similarity, turns, masked, maps=FEATURE)
    np.testing.assert_array_equal(masked, image * out.mask[..., None])


def test_points_are_those_of_the_official_code() -> None:
    similarity = torch.zeros(6, 8)
    similarity[2, 5], similarity[3, 1], similarity[5, 7] = 1.0, -1.0, -9.0
    assert max_point(similarity).tolist() == [[5, 2]]
    assert min_point(similarity).tolist() == [[1, 3]]  # the last row does not count
    assert min_point(similarity, np.array([1, 3, 2, 4])).tolist() == [[1, 3]]
    assert min_point(similarity, np.array([1, 3, 1, 4])).tolist() == [[0, 0]]
    mask = np.zeros((6, 8), np.bool_)
    assert box_of(mask).tolist() == [1, 1, 7, 5]
    mask[2, 3:6] = mask[4, 4] = True
    assert box_of(mask).tolist() == [3, 2, 5, 4]


def test_only_square_pictures(eager: EagerSamg) -> None:
    wide = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(InputError, match="square pictures, not 4 x 6 pixels"):
        eager.identify(wide, wide)


def test_decodes_have_no_empty_slots(eager: EagerSamg) -> None:
    eager.predictor.set_image(np.zeros((8, 8, 3), np.uint8))
    out = eager.predictor.predict(EagerPrompt(np.array([[3, 4]]), np.array([1])))
    assert out.masks.shape == (3, 8, 8)
    assert out.low_res.shape == (3, 256, 256)
    np.testing.assert_array_equal(out.masks, out.high_res.numpy() > 0)
    assert best(out) == out.iou.argmax()


def losses(seed: int) -> tuple[Any, np.ndarray]:
    """Return logits of three masks (3, 20, 30), the second a good one, and the mask."""
    random = np.random.default_rng(seed)
    mask = random.random((20, 30)) < 0.3
    truth = np.where(mask, 1.0, -1.0)
    rows = [scale * truth + random.standard_normal((20, 30)) for scale in (0.6, 3.0, -1.5)]
    return np.stack(rows).astype(np.float32), mask


@pytest.mark.parametrize("free", [(1 / 3, 1 / 3), (0.9, -0.4)])
def test_our_loss_is_the_official_one_and_its_gradient_autograds(free: tuple[float, float]) -> None:
    logits, mask = losses(1)
    weights = torch.tensor(free, dtype=torch.float64)[:, None].requires_grad_()
    weighted = (torch.from_numpy(logits).double().flatten(1) * adapt.mask_weights(weights)).sum(0)[None]
    wanted = torch.from_numpy(mask).double().flatten()[None]
    loss = adapt.dice_loss(weighted, wanted) + adapt.focal_loss(weighted, wanted)
    loss.backward()  # type: ignore[no-untyped-call]
    ours, gradient = mask_loss(np.array(free), logits.astype(np.float64).reshape(3, -1), mask.ravel())
    assert ours == pytest.approx(loss.item(), rel=1e-9)
    np.testing.assert_allclose(gradient, weights.grad[:, 0], rtol=1e-7)  # type: ignore[index]


def test_our_fit_is_the_official_one_on_the_same_logits() -> None:
    jitters = [losses(seed)[0] for seed in range(3)]
    mask = losses(0)[1]
    official = adapt.fit(lambda step: torch.from_numpy(jitters[step % 3]), mask)
    ours = fit_mask_weights(np.stack(jitters), mask)
    assert ours.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(ours, official, atol=1e-3)


def test_jitter_is_short_noise_on_a_unit_feature() -> None:
    random = torch.Generator().manual_seed(0)
    feature = torch.nn.functional.normalize(torch.ones(1, 256))
    noisy = adapt.jitter(feature, random)
    assert noisy.norm().item() == pytest.approx(1, abs=1e-6)
    assert 0.005 < (noisy - feature).norm().item() < 0.011
    assert not torch.equal(noisy, adapt.jitter(feature, random))


def test_adapting_decodes_at_every_step(eager: EagerSamg, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(GOLDEN / "samg_l0_dinov2_vits14_walker.npz") as golden:
        image, masked, points = (
            golden[name] for name in ("reference_image", "reference_mask_image", "extra_points_xy")
        )
    target = eager.identify(image, masked, points)
    counts = []
    predict = eager.predictor.predict
    monkeypatch.setattr(eager.predictor, "predict", lambda prompt: counts.append(len(prompt.points)) or predict(prompt))
    adapted = eager.adapt(target, image, masked.any(axis=-1), steps=3)
    assert counts == [4, 4, 4]  # target+, target- and two human points
    assert adapted.weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert not torch.equal(adapted.weights, target.weights)
    assert torch.equal(target.weights, torch.full((3, 1), 1 / 3))


def test_weights_come_from_the_key_alone() -> None:
    shapes = {"blocks.0.attn.qkv.weight": torch.zeros(6, 2), "a.norm.weight": torch.zeros(4), "n": torch.tensor(3)}
    first, second = fill(shapes), fill(dict(reversed(shapes.items())))
    assert first.keys() == shapes.keys()
    assert all(torch.equal(first[key], second[key]) for key in shapes)
    assert first["n"].item() == 3
    assert first["a.norm.weight"].dtype == torch.float32
    assert (first["a.norm.weight"] - 1).abs().max() < 0.5


@pytest.mark.parametrize("nested", [False, True])
def test_checkpoints_are_read_back(tmp_path: Path, nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dinov2.FEATURES, "vits14", dinov2.FeatureShape(48, 1, 2))
    model = filled(DinoV2("vits14"))
    write_checkpoint(model, tmp_path / "dino.pt", nested)
    assert ("state_dict" in torch.load(tmp_path / "dino.pt", weights_only=True)) == nested
    read = load_state_dict(tmp_path / "dino.pt")
    assert all(torch.equal(read[key], value) for key, value in model.state_dict().items())
