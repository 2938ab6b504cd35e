"""PIE-G's encoder: torchvision's weights, what it computes, and a small run that trains with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from samg_fast.errors import CheckpointError
from support.rendering import needs_rendering

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("tensorboard", reason="tensorboard is not installed")

import torch
from drqv2 import Options, build_encoder
from pieg import ResNet18

from support.training import SMALL, flat, invoke, make_agent, make_batch, rows, saved


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{each}": (channels,) for each in names} | {f"{name}.num_batches_tracked": ()}


def resnet18() -> dict[str, tuple[int, ...]]:
    """Write torchvision's names and shapes down: four layers of two blocks of two convolutions."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64), "fc.weight": (1000, 512), "fc.bias": (1000,)}
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (outputs, inputs, 3, 3), **norm(f"{name}.bn1", outputs)}
            shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3), **norm(f"{name}.bn2", outputs)}
            if inputs != outputs:
                shapes |= {
                    f"{name}.downsample.0.weight": (outputs, inputs, 1, 1),
                    **norm(f"{name}.downsample.1", outputs),
                }
            inputs = outputs
    return shapes


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    scales = {"weight": 0.05, "bias": 0.05}
    return {
        name: torch.rand(shape, generator=generator) * scales.get(name.rpartition(".")[2], 1.0) + 0.01
        if shape or not name.endswith("num_batches_tracked")
        else torch.tensor(0)
        for name, shape in resnet18().items()
    }


@pytest.mark.parametrize("counters", [True, False])
def test_torchvisions_weights_are_read(weights: dict[str, Any], tmp_path: Path, counters: bool) -> None:
    assert len(weights) == 122
    kept = {name: each for name, each in weights.items() if counters or not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "resnet18.pth")
    own = ResNet18(tmp_path / "resnet18.pth").state_dict()
    early = {name for name in weights if not name.startswith(("layer3", "layer4", "fc"))}
    assert set(own) == early
    for name in early - {name for name in early if name.endswith("num_batches_tracked")}:
        assert torch.equal(own[name], weights[name])


def test_other_files_are_refused(weights: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    with pytest.raises(
        CheckpointError, match=r"resnet18\.pth cannot be read as torchvision's resnet18: .*No such file"
    ):
        ResNet18(path)
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read as torchvision's resnet18"):
        ResNet18(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="it holds a list"):
        ResNet18(path)
    torch.save({"model": Path("anything")}, path)
    with pytest.raises(CheckpointError, match="cannot be read as torchvision's resnet18"):
        ResNet18(path)
    wrong = {**weights, "conv1.weight": torch.zeros(64, 3, 3, 3), "head.weight": torch.zeros(1)}
    del wrong["layer2.0.downsample.0.weight"]
    torch.save(wrong, path)
    with pytest.raises(CheckpointError) as caught:
        ResNet18(path)
    assert str(caught.value) == (
        f"{path} is not torchvision's resnet18: conv1.weight is (64, 3, 3, 3); "
        "layer2.0.downsample.0.weight is missing; head.weight is none of its tensors"
    )


def test_piegs_encoder_looks_at_each_image_alone_and_at_what_changed(weights: dict[str, Any], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "resnet18.pth")
    encoder = build_encoder(Options("walker_walk", encoder="pieg", resnet18=tmp_path / "resnet18.pth", size=33)).eval()
    images = torch.randint(256, (2, 9, 33, 33), dtype=torch.uint8)
    maps = [encoder.resnet(each.float() / 255 - 0.5) for each in images.split(3, dim=1)]
    assert maps[0].shape == (2, 128, 5, 5)
    inputs = torch.cat((maps[1], maps[2], maps[1] - maps[0], maps[2] - maps[1]), 1).flatten(1)
    assert torch.allclose(encoder(images), encoder.head(inputs), atol=1e-4)

    agent = make_agent(encoder, 33)
    frozen, head, mean = flat(encoder.resnet), flat(encoder.head), encoder.resnet.bn1.running_mean.clone()
    agent.act(images[0].numpy())
    assert torch.equal(encoder.resnet.bn1.running_mean, mean)
    agent.update(make_batch(33), 0.2)
    assert torch.equal(flat(encoder.resnet), frozen)
    assert not torch.equal(flat(encoder.head), head)
    assert not torch.equal(encoder.resnet.bn1.running_mean, mean)


@needs_rendering
def test_pieg_s_encoder_trains(weights: dict[str, Any], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "resnet18.pth")
    pieg = f"pendulum_swingup --run {tmp_path} --mask none --encoder pieg --resnet18 {tmp_path / 'resnet18.pth'}"
    measured = "--eval-episodes 1 --eval-settings original"
    result = invoke(pieg, SMALL, "--size 24 --frames 1200", measured)
    assert result.exit_code == 0, result.output
    state = saved(tmp_path)["agent"]
    steps = {int(each["step"]) for each in state["critic_adam"]["state"].values()}
    assert steps == {5}  # every second step after the first 50
    assert torch.equal(state["encoder"]["resnet.conv1.weight"], weights["conv1.weight"])
    (row,) = rows(tmp_path)
    assert math.isfinite(row["mean"])
