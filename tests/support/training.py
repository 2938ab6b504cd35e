"""What the tests of `examples/drqv2.py` share: small agents, small runs, and what runs leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from drqv2 import Agent, Options, app
from typer.testing import CliRunner

# Episodes of 50 steps, and networks that learn in milliseconds
SMALL = "--size 48 --action-repeat 20 --seed-frames 1000 --hidden-dim 32 --feature-dim 8 --batch 8 --threads 1"


def invoke(*arguments: str) -> Any:
    """Run the command, and give the other tests the threads back that it limits."""
    threads = torch.get_num_threads()
    try:
        return CliRunner().invoke(app, [part for each in arguments for part in each.split(" ")])
    finally:
        torch.set_num_threads(threads)


def saved(folder: Path) -> dict[str, Any]:
    """Read a run's checkpoint."""
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


def rows(folder: Path) -> list[dict[str, Any]]:
    """Read a run's evaluations."""
    return [json.loads(line) for line in (folder / "evaluation.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[Any]]:
    """Read what TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def make_agent(encoder: torch.nn.Module, size: int, **changes: Any) -> Agent:
    """Build an agent with two actions that learns in milliseconds."""
    options = Options("walker_walk", hidden_dim=16, feature_dim=8, shift=2, **changes)
    return Agent(encoder, (9, size, size), 2, options, torch.device("cpu"))


def make_batch(size: int, *, discount: float = 0.97, reward: float = 1.0) -> list[torch.Tensor]:
    """Make six transitions of random images and actions."""
    images = torch.randint(256, (2, 6, 9, size, size), dtype=torch.uint8)
    scalars = torch.full((6,), reward), torch.full((6,), discount)
    return [images[0], torch.rand(6, 2) * 2 - 1, *scalars, images[1]]


def flat(module: torch.nn.Module) -> torch.Tensor:
    """Return all weights of a network as one tensor."""
    return torch.cat([each.detach().flatten() for each in module.parameters()])
