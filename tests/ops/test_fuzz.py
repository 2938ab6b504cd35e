"""Every operation on any input that the checks let through: it gives the definition's results.

Under sanitizers this also tests that no kernel reads or writes beyond its arrays: every array and workspace is an
allocation of its own, of exactly its size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.bundle import NetworkSpec
from samg_fast.devices.base import Device
from samg_fast.errors import InputError
from samg_fast.ops import reference
from support.fuzzing import (
    batches,
    fuzzed,
    int32s,
    integers,
    is_too_narrow,
    kinds,
    laid_out,
    layouts,
    numbers,
    on_every_device,
    real,
    run_twice,
    seeds,
    sizes,
)
from support.synthetic_bundle import DINO_SPEC, SAM_SPEC

# As in the tests of each operation: float32 sums of up to four normalised values; float16's rounding of values from 2
# to 4; cosines of at most 1; logits up to 40.
PREPROCESS_TOLERANCE = 2e-6
HALF_TOLERANCE = 2**-10
SIMILARITY_TOLERANCE = 2e-6
LOGITS_TOLERANCE = 2e-5


specs = st.builds(
    lambda side, resize: replace({"uint8": SAM_SPEC, "float": DINO_SPEC}[resize], side=side),
    st.integers(1, 40),
    st.sampled_from(["uint8", "float"]),
)


@on_every_device
@fuzzed(40)
@given(
    seed=seeds, batch=batches, size=sizes, networks=st.lists(specs, min_size=1, max_size=2), layout=layouts, dtype=real
)
def test_preprocess(
    name: str, seed: int, batch: int, size: tuple[int, int], networks: list[NetworkSpec], layout: str, dtype: Any
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (batch, *size, 3), np.uint8)
    given_frames = laid_out(frames, layout)
    if any(is_too_narrow(*size, spec.side) for spec in networks):
        with pytest.raises(InputError, match="too narrow"):
            ops.preprocess(given_frames, networks, dtype=dtype)
        return
    shapes = [(batch, 3, spec.side, spec.side) for spec in networks]

    def run(device: Device) -> list[NDArray[Any]]:
        made = ops.preprocess(given_frames, networks, dtype=dtype, device=device)
        out = [device.empty(shape, dtype) for shape in shapes]
        assert all(
            a is b for a, b in zip(ops.preprocess(given_frames, networks, out=out, device=device), out, strict=True)
        )
        assert all(a.tobytes() == b.tobytes() for a, b in zip(made, out, strict=True))
        return made

    tolerance = PREPROCESS_TOLERANCE if dtype == np.float32 else HALF_TOLERANCE
    for got, spec, shape in zip(run_twice(name, run), networks, shapes, strict=True):
        assert (got.shape, got.dtype) == (shape, dtype)
        np.testing.assert_allclose(got.astype(np.float32), reference.preprocess(frames, spec), atol=tolerance, rtol=0)


@on_every_device
@fuzzed(30)
@given(
    seed=seeds,
    kind=kinds,
    lead=st.sampled_from([(), (1,), (2,), (3,)]),
    each_its_own=st.booleans(),
    count=st.one_of(st.integers(1, 5), st.sampled_from([8, 9, 64])),
    channels=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    grids=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    dtypes=st.tuples(real, real),
    layout=layouts,
    prompt_side=st.integers(1, 90),
    size=sizes,
)
def test_similarity_map(
    name: str,
    seed: int,
    kind: str,
    lead: tuple[int, ...],
    each_its_own: bool,
    count: int,
    channels: tuple[int, int],
    grids: tuple[int, int],
    dtypes: tuple[Any, Any],
    layout: str,
    prompt_side: int,
    size: tuple[int, int],
) -> None:
    random = np.random.default_rng(seed)
    own = lead if each_its_own else ()
    features = [numbers(random, (*own, count, c), "ordinary" if kind == "ties" else kind) for c in channels]
    if kind != "wild":
        features = [reference.unit(each, -1) for each in features]
    maps = [numbers(random, (*lead, c, g, g), kind, dtype) for c, g, dtype in zip(channels, grids, dtypes, strict=True)]
    arrays = [laid_out(each, layout) for each in (*features, *maps)]
    options: dict[str, Any] = {"prompt_side": prompt_side, "height": size[0], "width": size[1]}
    if is_too_narrow(*size, prompt_side):
        with pytest.raises(InputError, match="too narrow"):
            ops.similarity_map(*arrays, **options)
        return
    shape = (*lead, count, *size)

    def run(device: Device) -> list[NDArray[Any]]:
        out = device.empty(shape, np.float32)
        assert ops.similarity_map(*arrays, **options, out=out, device=device) is out
        assert ops.similarity_map(*arrays, **options, device=device).tobytes() == out.tobytes()
        return [out]

    (got,) = run_twice(name, run)
    assert (got.shape, got.dtype) == (shape, np.float32)
    if kind != "ordinary":
        return  # cosines of such values are rounding errors or NaN
    wide = [each.astype(np.float32) for each in (*features, *maps)]
    for index in np.ndindex(lead):
        one = [each[index] if own or which > 1 else each for which, each in enumerate(wide)]
        tolerance = SIMILARITY_TOLERANCE * cancellation(one[3], grids[0])
        np.testing.assert_allclose(got[index], reference.similarity_map(*one, **options), atol=tolerance, rtol=0)


def cancellation(dino_map: NDArray[np.float32], grid: int) -> float:
    """Return by what factor cancellation enlarges the rounding error of a lifted cell.

    A is the ratio of the norms of its neighbours to its own. The factor is A where a cell is summed from its channels,
    and A squared where its squared norm comes from products of neighbours, as the kernels compute it up to A = 4.
    """
    mixed = reference.lift(np.linalg.norm(dino_map, axis=0, keepdims=True), grid)
    ratio = float((mixed / np.linalg.norm(reference.lift(dino_map, grid), axis=0)).max())
    return ratio * min(ratio, 4)


boxes_of_any_numbers = st.tuples(*[st.one_of(int32s, st.integers(-(2**70), 2**70))] * 4)


@on_every_device
@fuzzed(30)
@given(data=st.data(), seed=seeds, kind=kinds, lead=st.sampled_from([(), (1,), (3,)]), size=sizes, layout=layouts)
def test_topk_points(name: str, data: st.DataObject, seed: int, kind: str, lead: Any, size: Any, layout: str) -> None:
    values = numbers(np.random.default_rng(seed), (*lead, *size), kind)
    limit = min(size[0] * size[1], ops.MAX_POINTS)
    k = data.draw(st.one_of(st.integers(1, min(limit, 4)), st.integers(1, limit)), "k")
    largest = data.draw(st.booleans(), "largest")
    choice = data.draw(st.sampled_from(["none", "tuple", "array"]), "box")
    box: Any = None
    if choice == "tuple":
        box = data.draw(boxes_of_any_numbers)
    elif choice == "array":
        box = data.draw(st.composite(integers)((*lead, 4)))
    given_values = laid_out(values, layout)
    shape = (*lead, k, 2)

    def run(device: Device) -> list[NDArray[Any]]:
        out = device.empty(shape, np.int32)
        assert ops.topk_points(given_values, k, largest, box, out=out, device=device) is out
        assert ops.topk_points(given_values, k, largest, box, device=device).tobytes() == out.tobytes()
        return [out]

    (got,) = run_twice(name, run)
    assert (got.shape, got.dtype) == (shape, np.int32)
    for index in np.ndindex(lead):
        own = tuple(box[index].tolist()) if choice == "array" else box
        np.testing.assert_array_equal(got[index], reference.topk_points(values[index], k, largest, own))


@on_every_device
@fuzzed(40)
@given(
    seed=seeds,
    kind=kinds,
    batch=batches,
    masks=st.integers(1, 4),
    side=st.integers(1, 36),
    choice=st.sampled_from(["weights", "iou"]),
    iou_kind=kinds,
    dtype=real,
    layout=layouts,
    prompt_side=st.integers(1, 90),
    size=sizes,
)
def test_resize_logits(
    name: str,
    seed: int,
    kind: str,
    batch: int,
    masks: int,
    side: int,
    choice: str,
    iou_kind: str,
    dtype: Any,
    layout: str,
    prompt_side: int,
    size: tuple[int, int],
) -> None:
    random = np.random.default_rng(seed)
    logits = numbers(random, (batch, masks, side, side), kind, dtype)
    logits = logits if kind == "wild" else logits * dtype(10)
    weights = numbers(random, (batch, masks), iou_kind if choice == "iou" or kind == "wild" else "ordinary")
    weights = weights / 2 if choice == "weights" else weights
    arrays = laid_out(logits, layout), laid_out(weights, layout)
    options: dict[str, Any] = {"prompt_side": prompt_side, "height": size[0], "width": size[1]}
    if is_too_narrow(*size, prompt_side):
        with pytest.raises(InputError, match="too narrow"):
            ops.resize_logits(arrays[0], **{choice: arrays[1]}, **options)
        return
    got = reference.ResizedLogits(
        *run_twice(name, lambda device: ops.resize_logits(arrays[0], **{choice: arrays[1]}, **options, device=device))
    )
    promised = {
        "settled": ((batch, side, side), np.float32),
        "logits": ((batch, *size), np.float32),
        "mask": ((batch, *size), np.bool_),
        "area": ((batch,), np.int32),
        "box": ((batch, 4), np.int32),
        "chosen": ((batch,), np.int32),
    }
    for field, (shape, of) in promised.items():
        assert (getattr(got, field).shape, getattr(got, field).dtype) == (shape, of), field
    # Mask, area and box are compared with the kernel's own logits, as a logit near 0 may be on either side of it.
    np.testing.assert_array_equal(got.mask.view(np.uint8), got.logits > 0)
    np.testing.assert_array_equal(got.area, got.mask.sum(axis=(1, 2)))
    assert got.box.tolist() == [list(reference.mask_box(mask)) for mask in got.mask]
    with np.errstate(all="ignore"):
        wanted = reference.resize_logits(logits.astype(np.float32), **{choice: weights}, **options)
    np.testing.assert_array_equal(got.chosen, wanted.chosen)
    if kind != "wild":
        np.testing.assert_allclose(got.settled, wanted.settled, atol=LOGITS_TOLERANCE, rtol=0)
        np.testing.assert_allclose(got.logits, wanted.logits, atol=LOGITS_TOLERANCE, rtol=0)


@on_every_device
@fuzzed(60)
@given(
    data=st.data(),
    batch=st.integers(0, 3),
    points_per_frame=st.integers(0, 6),
    count=st.integers(0, 6),
    spare=st.integers(0, 40),
    boxed=st.booleans(),
    scale=st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 2),
    layout=layouts,
)
def test_prompt_assembly(
    name: str,
    data: st.DataObject,
    batch: int,
    points_per_frame: int,
    count: int,
    spare: int,
    boxed: bool,
    scale: tuple[float, float],
    layout: str,
) -> None:
    drawn = st.composite(integers)
    arrays = [data.draw(drawn(shape)) for shape in ((batch, points_per_frame, 2), (batch, count), (batch, count))]
    arrays[1] = data.draw(drawn((batch, count), st.one_of(st.integers(-2, points_per_frame + 1), int32s)))
    boxes = data.draw(drawn((batch, 4))) if boxed else None
    slots = count + 1 + boxed + spare
    given_arrays = [None if each is None else laid_out(each, layout) for each in (*arrays, boxes)]
    got = run_twice(name, lambda device: ops.prompt_assembly(*given_arrays, scale=scale, slots=slots, device=device))
    with np.errstate(over="ignore"):
        wanted = reference.prompt_assembly(*arrays, boxes, scale=scale, slots=slots)
    for array, expected in zip(got, wanted, strict=True):
        assert (array.shape, array.dtype) == (expected.shape, np.float32)
        np.testing.assert_array_equal(array, expected)


@on_every_device
@fuzzed(60)
@given(
    seed=seeds,
    lead=st.sampled_from([(), (0,), (1,), (2,), (3,)]),
    size=st.one_of(sizes, st.tuples(st.integers(0, 2), st.integers(0, 2))),
    background=st.sampled_from(["none", "colour", "one image", "an image each"]),
    layout=layouts,
    in_place=st.booleans(),
)
def test_apply_mask(
    name: str, seed: int, lead: tuple[int, ...], size: tuple[int, int], background: str, layout: str, in_place: bool
) -> None:
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, (*lead, *size, 3), np.uint8)
    mask_bytes = random.choice(np.array([0, 0, 1, 2, 255], np.uint8), (*lead, *size))  # any byte but 0 is true
    behind = {
        "none": None,
        "colour": random.integers(0, 256, 3, np.uint8),
        "one image": random.integers(0, 256, (*size, 3), np.uint8),
        "an image each": random.integers(0, 256, frame.shape, np.uint8),
    }[background]
    mask = laid_out(mask_bytes, layout).view(np.bool_)
    given_behind = None if behind is None else laid_out(behind, layout)

    def run(device: Device) -> list[NDArray[Any]]:
        if in_place:
            own = frame.copy()
            assert ops.apply_mask(own, mask, given_behind, out=own, device=device) is own
            return [own]
        return [ops.apply_mask(laid_out(frame, layout), mask, given_behind, device=device)]

    (got,) = run_twice(name, run)
    assert (got.shape, got.dtype) == (frame.shape, np.uint8)
    np.testing.assert_array_equal(got, reference.apply_mask(frame, mask_bytes != 0, behind))
