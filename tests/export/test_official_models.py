"""The official models in PyTorch, compared with the official code's results for the same weights."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from support.golden_frames import GOLDEN

torch = pytest.importorskip("torch", reason="the official models need the extra export")

from benchmarks.eager.weights import fill  # noqa: E402
from samg_fast import ops  # noqa: E402
from samg_fast.export.bundle import dino_spec, sam_spec  # noqa: E402
from samg_fast.export.dinov2 import FEATURES, DinoV2, PatchFeatures  # noqa: E402
from samg_fast.export.efficientvit import ENCODERS  # noqa: E402
from samg_fast.export.fuse import fuse  # noqa: E402
from samg_fast.export.sam import EfficientViTSam, PromptDecoder  # noqa: E402
from samg_fast.export.tokens import TokenDecoder  # noqa: E402
from samg_fast.ops.geometry import Letterbox  # noqa: E402

EMBEDDING = 1e-4
"""Relative to the largest value, in float32. Measured: at most 2e-6."""

LOW_RES, IOU = 1e-3, 1e-3
"""Relative to the largest logit, and for a predicted IoU. Measured: 4e-4 for both; random weights steepen attention."""

AFTER_A_MASK = 5e-2, 5e-3
"""The same with logits of an earlier decode as input, which amplifies their difference. Measured: 1e-2 and 7e-4."""

BORDERLINE = 1e-3
"""Logits closer to 0 may change sign. Measured: at most 8e-5."""


def with_weights(model: Any) -> Any:
    """Give a model the golden weights."""
    model.load_state_dict(fill(model.state_dict()))
    return model.eval().requires_grad_(False)


def relative(got: Any, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected value."""
    return float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("variant", ENCODERS)
def test_keys_of_efficientvit_sam(variant: str) -> None:
    with torch.device("meta"):
        model = EfficientViTSam(variant)
    assert_keys(model, f"efficientvit_sam_{variant}")


@pytest.mark.parametrize("variant", ["vits14", "vitb14", "vitl14", "vits14-reg"])
def test_keys_of_dinov2(variant: str) -> None:
    with torch.device("meta"):
        model = DinoV2(variant)
    assert_keys(model, f"dinov2_{variant.replace('-', '_')}")


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("vits14", 22.1), ("vitb14", 86.6), ("vitl14", 304.4), ("vitg14", 1136.5)],
)
def test_parameters_of_dinov2(variant: str, millions: float) -> None:
    """Published counts; no file of keys exists for ViT-g."""
    for name in (variant, f"{variant}-reg"):
        with torch.device("meta"):
            model = DinoV2(name)
        assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert set(FEATURES) >= {variant, f"{variant}-reg"}


def assert_keys(model: Any, name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.keys.json").read_text())
    found = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in model.state_dict().items()
    }
    assert found == expected


@pytest.mark.parametrize("variant", ["vits14", "vits14-reg", "vitb14", pytest.param("vitl14", marks=pytest.mark.slow)])
@pytest.mark.parametrize("baked", [False, True])
def test_tokens(variant: str, baked: bool) -> None:
    """Both as the official code runs it, and as exported: folded, with positions computed once."""
    model = with_weights(DinoV2(variant))
    with np.load(GOLDEN / f"dinov2_{variant.replace('-', '_')}.npz") as golden:
        image = ops.preprocess(golden["image"][None], [dino_spec(448, model.shape.width)])[0]
        np.testing.assert_allclose(image[0, :, ::37, ::37][:, :13, :13], golden["input_crop"], atol=2e-6)
        if baked:
            maps = PatchFeatures(fuse(model), 448).eval()(torch.from_numpy(image))
            tokens = maps.flatten(2).transpose(1, 2).numpy()
        else:
            tokens = model(torch.from_numpy(image)).numpy()
        assert tokens.shape == (1, 32 * 32, model.shape.width)
        assert relative(tokens[0, ::16, ::12], golden["token_sample"]) <= EMBEDDING
        stats = (tokens.mean(), tokens.std(), np.linalg.norm(tokens))
        np.testing.assert_allclose(stats, golden["token_stats"], rtol=1e-3, atol=1e-5)


class Prompt(NamedTuple):
    """Points, their labels and a box, in pixels."""

    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    box: tuple[float, float, float, float] | None = None


class Golden:
    """A model, and the official code's results."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.sam = with_weights(EfficientViTSam(variant))
        self.arrays = np.load(GOLDEN / f"efficientvit_sam_{variant}.npz")
        self.spec = sam_spec(self.sam.shape.side)
        self.decoder = PromptDecoder(self.sam).eval()
        self.embeddings = {name: self.encode(name) for name in ("walker84", "land480x640")}

    def input(self, picture: str) -> np.ndarray:
        return ops.preprocess(self.arrays[f"{picture}.image"][None], [self.spec])[0]

    def encode(self, picture: str) -> Any:
        return self.sam.image_encoder(torch.from_numpy(self.input(picture)))

    def decode(self, picture: str, prompt: Prompt, mask: Any = None, slots: int = 16) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.arrays[f"{picture}.image"].shape[:2]
        coords, labels = in_slots(prompt, Letterbox(height, width, 1024), slots)
        has = torch.full((1,), float(mask is not None))
        masks, iou = self.decoder(
            self.embeddings[picture], coords, labels, torch.zeros(1, 1, 256, 256) if mask is None else mask, has
        )
        return masks.numpy(), iou.numpy()


def in_slots(prompt: Prompt, letterbox: Letterbox, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the decoder's slots with points that lie between pixels, which a frame's never do."""
    places, labels = list(prompt.points), list(prompt.labels)
    if prompt.box is None:
        places, labels = [*places, (0, 0)], [*labels, -1]
    else:
        places, labels = [*places, prompt.box[:2], prompt.box[2:]], [*labels, 2, 3]
    missing = slots - len(labels)
    coords = letterbox.points(np.array([*places, *[(0, 0)] * missing], np.float64))
    kinds = [*labels, *[-2] * missing]
    return torch.tensor(coords[None], dtype=torch.float32), torch.tensor([kinds], dtype=torch.float32)


@pytest.fixture(scope="module", params=["l0", "l2", pytest.param("xl0", marks=pytest.mark.slow)])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Build each model once."""
    return Golden(request.param)


def prompts(golden: Golden, picture: str) -> list[Prompt]:
    """Return the golden files' prompt sets, in pixels; fractions of a pixel count."""
    height, width = golden.arrays[f"{picture}.image"].shape[:2]

    def at(*fractions: tuple[float, float]) -> Any:
        return tuple((x * width, y * height) for x, y in fractions)

    three = at((0.5, 0.45), (0.1, 0.05), (0.3, 0.8))
    box: Any = (0.2 * width, 0.1 * height, 0.8 * width, 0.9 * height)
    signs = (1, 0, 1)
    return [
        Prompt(three[:1], signs[:1]),
        Prompt(three, signs),
        Prompt((*three, *at((0.9, 0.1))), (*signs, 0), box),
        Prompt((), (), box),
    ]


PICTURES = ("walker84", "land480x640")


@pytest.mark.parametrize("picture", PICTURES)
def test_embedding(golden: Golden, picture: str) -> None:
    image = golden.input(picture)
    np.testing.assert_allclose(image[0, :, ::37, ::37], golden.arrays[f"{picture}.input_crop"], atol=2e-6)
    embedding = golden.embeddings[picture].numpy()
    assert relative(embedding[0, ::8, ::8, ::8], golden.arrays[f"{picture}.embedding_sample"]) <= EMBEDDING
    stats = (embedding.mean(), embedding.std(), np.linalg.norm(embedding))
    np.testing.assert_allclose(stats, golden.arrays[f"{picture}.embedding_stats"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("index", range(4))
def test_decode(golden: Golden, picture: str, index: int) -> None:
    height, width = golden.arrays[f"{picture}.image"].shape[:2]
    masks, iou = golden.decode(picture, prompts(golden, picture)[index])
    alone = np.ones((len(masks[0]), 1), np.float32)  # each mask for itself
    size = {"prompt_side": 1024, "height": height, "width": width}
    logits = ops.resize_logits(masks[0][:, None], weights=alone, **size).logits
    for multi, chosen in (("multi1", slice(1, 4)), ("multi0", slice(0, 1))):
        key = f"{picture}.prompt{index}.{multi}"
        assert relative(masks[0, chosen, ::8, ::8], golden.arrays[f"{key}.low_res_sample"]) <= LOW_RES
        np.testing.assert_allclose(iou[0, chosen], golden.arrays[f"{key}.iou"], atol=IOU)
        bits = np.unpackbits(golden.arrays[f"{key}.mask_bits"], axis=1)[:, : height * width]
        other = (logits[chosen] > 0) != bits.reshape(-1, height, width).astype(bool)
        assert np.abs(logits[chosen])[other].max(initial=0) <= BORDERLINE
        assert np.abs((logits[chosen] > 0).sum(axis=(1, 2)) - golden.arrays[f"{key}.mask_area"]).max() <= other.sum()


@pytest.mark.parametrize("picture", PICTURES)
def test_decode_with_mask_input(golden: Golden, picture: str) -> None:
    prompt = prompts(golden, picture)[2]
    before, _ = golden.decode(picture, prompt)
    masks, iou = golden.decode(picture, prompt, torch.from_numpy(before[:, 1:2].copy()))
    key = f"{picture}.prompt2_with_mask_input.multi1"
    assert relative(masks[0, 1:, ::8, ::8], golden.arrays[f"{key}.low_res_sample"]) <= AFTER_A_MASK[0]
    np.testing.assert_allclose(iou[0, 1:], golden.arrays[f"{key}.iou"], atol=AFTER_A_MASK[1])


def test_the_decoder_as_exported() -> None:
    """Convolutions as linear layers give the same results, to rounding in double precision."""
    official = PromptDecoder(with_weights(EfficientViTSam("l0"))).eval().double()
    exported = TokenDecoder(official).eval().double()
    random = torch.Generator().manual_seed(0)
    inputs = {
        "embedding": torch.randn(2, 256, 64, 64, generator=random),
        "point_coords": 1024 * torch.rand(2, 8, 2, generator=random),
        "point_labels": torch.tensor([[1.0, 0, 1, -1, -2, -2, -2, -2], [1, 0, 1, 0, 0, 2, 3, -2]]),
        "mask_input": torch.randn(2, 1, 256, 256, generator=random),
        "has_mask_input": torch.tensor([0.0, 1.0]),
    }
    doubles = {name: value.double() for name, value in inputs.items()}
    for ours, expected in zip(exported(**doubles), official(**doubles), strict=True):
        assert relative(ours, expected.numpy()) <= 1e-9
        assert relative(ours.flip(0), expected.numpy()) > 1e-2


@pytest.mark.parametrize("golden", ["l0"], indirect=True)  # the decoder is the same in every variant
def test_empty_slots_change_nothing(golden: Golden) -> None:
    """A prompt that fills all slots, compared with the same prompt and eight empty slots."""
    prompt = prompts(golden, "walker84")[2]
    tight, wide = golden.decode("walker84", prompt, slots=6), golden.decode("walker84", prompt, slots=14)
    assert relative(wide[0], tight[0]) <= LOW_RES
    np.testing.assert_allclose(wide[1], tight[1], atol=IOU)
