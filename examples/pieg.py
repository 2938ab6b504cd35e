"""PIE-G's encoder for `drqv2.py`, which takes it with ``--encoder pieg --resnet18 FILE``.

It is that of Yuan et al., "Pre-Trained Image Encoder for Generalizable Visual Reinforcement Learning" (arXiv
2212.08860): the early layers of a ResNet-18 that was trained on ImageNet, and never learns again.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from run_folder import load_tensors
from torch import Tensor, nn

from samg_fast.errors import CheckpointError, InputError


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 up to its second layer, with torchvision's names for the weights, read from torchvision's file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))

        saved, own = load_tensors(path, "torchvision's resnet18"), self.state_dict()
        # Older files lack batch normalisation's counters, which PyTorch adds
        needed = {name: tuple(each.shape) for name, each in own.items() if not name.endswith("num_batches_tracked")}
        found = {name: tuple(getattr(each, "shape", ())) for name, each in saved.items()}
        wrong = [f"{name} is {found.get(name, 'missing')}" for name in needed if found.get(name) != needed[name]]
        later = ("layer3.", "layer4.", "fc.")
        wrong += [f"{name} is none of its tensors" for name in found if name not in own and not name.startswith(later)]
        if wrong:
            raise CheckpointError(f"{path} is not torchvision's resnet18: {'; '.join(wrong)}")
        self.load_state_dict({name: saved[name] for name in needed})

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 128, H / 8, W / 8)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        features: Tensor = self.layer2(self.layer1(x))
        return features


class PiegEncoder(nn.Module):
    """Features of every image but the first, and their differences from those of the image before.

    As in the authors' code the weights are frozen, but batch normalisation is not: it uses the batch's mean when the
    agent learns, and the running mean of those batches when it acts.
    """

    def __init__(self, resnet18: Path | None, frame_stack: int, size: int) -> None:
        super().__init__()
        if resnet18 is None:
            raise InputError(
                "encoder pieg needs --resnet18 FILE, torchvision's resnet18-f37072fd.pth: "
                "https://download.pytorch.org/models/resnet18-f37072fd.pth"
            )
        if frame_stack < 2:
            raise InputError("encoder pieg compares images: --frame-stack must be 2 or more, not 1")
        self.resnet = ResNet18(resnet18).requires_grad_(False)
        side = -(-size // 8)
        linear = nn.Linear(2 * (frame_stack - 1) * 128 * side * side, 1024)
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(linear, nn.LayerNorm(1024))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3 n, H, W) images from 0 to 255, n of them, to (B, 1024) features."""
        count, channels, *size = images.shape
        with torch.no_grad():
            # The authors' range; not ImageNet's mean and deviation
            maps = self.resnet(images.reshape(-1, 3, *size) / 255 - 0.5)
        maps = maps.reshape(count, channels // 3, *maps.shape[1:])
        later = maps[:, 1:]
        features: Tensor = self.head(torch.cat((later, later - maps[:, :-1]), 1).flatten(1))
        return features
