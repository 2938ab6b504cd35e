"""Logits to the frame."""

from __future__ import annotations

import numpy as np
import pytest
from slow_walk import to_frame

from samg_fast import ops, reference
from samg_fast.errors import InputError, InputTypeError


@pytest.mark.parametrize(("height", "width"), [(84, 84), (20, 33), (33, 20), (1, 1), (130, 64)])
@pytest.mark.parametrize(("side", "prompt_side"), [(64, 64), (32, 100), (64, 40)])
@pytest.mark.parametrize("count", [1, 3])
def test_fast_is_the_reference(count: int, side: int, prompt_side: int, height: int, width: int) -> None:
    logits = (np.random.default_rng(side).standard_normal((count, side, side)) * 10).astype(np.float32)
    wanted = reference.resize_logits(logits, prompt_side=prompt_side, height=height, width=width)
    got = ops.resize_logits(logits, prompt_side=prompt_side, height=height, width=width)
    # Logits up to 40, float32.
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    np.testing.assert_allclose(wanted[0], to_frame(logits[0], [prompt_side], height, width), atol=2e-5)


def test_same_size_is_the_same() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(ops.resize_logits(logits, prompt_side=32, height=32, width=32), logits)


def test_padding_is_cropped() -> None:
    """What the decoder says beyond the frame does not reach it."""
    logits = np.full((1, 32, 32), -5, np.float32)
    logits[:, 16:] = 100
    out = ops.resize_logits(logits, prompt_side=32, height=10, width=20)
    np.testing.assert_allclose(out, -5, atol=1e-5)


def test_bad_input() -> None:
    size = {"prompt_side": 32, "height": 8, "width": 8}
    with pytest.raises(InputTypeError, match="low_res must be float32"):
        ops.resize_logits(np.ones((1, 32, 32)), **size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"low_res must be float32 of shape \(any, 32, 32\)"):
        ops.resize_logits(np.ones((1, 32, 30), np.float32), **size)
