"""What the fuzzing of operations draws from, and devices that leave rubbish everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from samg_fast.devices.base import Device
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import InputError
from samg_fast.ops.geometry import Letterbox
from support.devices import CPU_NAMES, opened
from support.synthetic_bundle import SAM_SPEC

DEVICES = [*CPU_NAMES, "simt-shuffled"]
on_every_device = pytest.mark.parametrize("name", DEVICES)


def fuzzed(examples: int) -> settings:
    """Take the same examples at every run."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=slow)


INT32 = np.iinfo(np.int32)
WILD = np.array(
    [np.nan, np.inf, -np.inf, -0.0, 0, 3e38, -3e38, 65504, 1e-45, -1e-40, 6e-8, 1e-12, 1, -2.5, 1e19], np.float32
)

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["ordinary", "ties", "wild"])
layouts = st.sampled_from(["dense", "dense", "fortran", "stepped", "reversed", "read-only"])
real = st.sampled_from([np.float32, np.float16])
batches = st.integers(1, 3)
# Short and long sides, odd and even; and what a letterbox refuses, or nearly.
sizes = st.one_of(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(st.integers(1, 3), st.integers(60, 300)),
    st.tuples(st.integers(60, 300), st.integers(1, 3)),
)
int32s = st.one_of(st.integers(-3, 30), st.integers(INT32.min, INT32.max), st.sampled_from([INT32.min, INT32.max]))


def numbers(random: np.random.Generator, shape: Sequence[int], kind: str, dtype: DTypeLike = np.float32) -> Any:
    values = {
        "ordinary": lambda: random.standard_normal(shape),
        "ties": lambda: random.integers(-2, 3, shape),
        "wild": lambda: random.choice(WILD, shape),
    }[kind]()
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(dtype)


def integers(draw: st.DrawFn, shape: tuple[int, ...], numbers: st.SearchStrategy[int] = int32s) -> NDArray[np.int32]:
    count = int(np.prod(shape))
    return np.array(draw(st.lists(numbers, min_size=count, max_size=count)), np.int32).reshape(shape)


def laid_out(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return an array with the same entries, elsewhere in memory."""
    if layout == "fortran":
        return array.copy(order="F")
    if layout == "stepped":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return array[::-1].copy()[::-1]
    copied = array.copy()
    copied.flags.writeable = layout != "read-only"
    return copied


def filled(shape: Sequence[int], dtype: DTypeLike, byte: int) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = byte
    return array


class Soiled(Cpu):
    """A host device whose new arrays and workspace are full of one byte, and the workspace no larger than needed."""

    def __init__(self, clean: Any, byte: int) -> None:
        super().__init__(clean.threads)
        self.engine, self._launch, self._byte = clean.engine, clean._launch, byte

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        return filled(shape, dtype, self._byte)

    def run(self, operation: str, *arguments: object) -> None:
        kernel = getattr(self.engine, operation)
        needed = kernel(*arguments, np.empty(0, np.uint8), self._launch)
        if needed:
            kernel(*arguments, filled((needed,), np.uint8, self._byte), self._launch)


def run_twice(name: str, run: Callable[[Device], Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Run on a device, then again among other leftovers, with the same result to the bit."""
    with opened(name) as place:
        first, again = (list(run(Soiled(place.device, byte))) for byte in (0x00, 0xFF))
    for array, same in zip(first, again, strict=True):
        assert array.tobytes() == same.tobytes()
    return first


def is_too_narrow(height: int, width: int, side: int) -> bool:
    try:
        Letterbox(height, width, side)
    except InputError:
        return True
    return False


SPEC = replace(SAM_SPEC, side=16, grid=4, channels=8)
