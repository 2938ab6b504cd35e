"""Where arrays lie: never two in the same bytes while both are needed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from samg_fast.pipeline.gpu.memory import ALIGNMENT, Spec, lay_out


def spec(size: int) -> Spec:
    return Spec((size,), np.dtype(np.uint8))


lifetimes = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (min(pair), max(pair)))


@given(
    st.lists(st.tuples(st.integers(0, 5000), lifetimes), max_size=12),
    st.lists(st.integers(0, 5000), max_size=4),
    st.integers(0, 12),
)
def test_nothing_overlaps_that_is_needed_together(
    shared: list[tuple[int, tuple[int, int]]], kept: list[int], varying: int
) -> None:
    specs = {f"kept {index}": spec(size) for index, size in enumerate(kept)}
    exclusive = list(specs)
    specs |= {f"shared {index}": spec(size) for index, (size, _) in enumerate(shared)}
    spans = {f"shared {index}": stages for index, (_, stages) in enumerate(shared)}
    behind = [*spans][:varying]
    layout = lay_out(specs, spans, exclusive, behind)
    assert layout.offsets.keys() == specs.keys()
    always = (0, 9)
    for name, offset in layout.offsets.items():
        assert offset % ALIGNMENT == 0
        assert offset + specs[name].bytes <= layout.size
        first, last = spans.get(name, always)
        for other, start in layout.offsets.items():
            begin, end = spans.get(other, always)
            if other != name and begin <= last and first <= end:
                assert offset + specs[name].bytes <= start or start + specs[other].bytes <= offset
    assert [layout.offsets[name] for name in exclusive] == sorted(layout.offsets[name] for name in exclusive)
    larger = specs | {name: spec(2 * specs[name].bytes + 1) for name in behind}
    moved = {
        name
        for name, offset in lay_out(larger, spans, exclusive, behind).offsets.items()
        if offset != layout.offsets[name]
    }
    assert moved <= {*behind}


def test_what_is_never_needed_together_shares() -> None:
    specs = {name: spec(1000) for name in "abcd"}
    layout = lay_out(specs, {"a": (0, 1), "b": (1, 2), "c": (2, 3), "d": (3, 4)})
    assert layout.size == 2 * 1024
    assert layout.offsets["a"] == layout.offsets["c"] != layout.offsets["b"] == layout.offsets["d"]


def test_bytes() -> None:
    assert Spec((2, 3), np.dtype(np.float32)).bytes == 24
    assert Spec((), np.dtype(np.int32)).bytes == 4
    assert Spec((0, 4), np.dtype(np.int32)).bytes == 0
