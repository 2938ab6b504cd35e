"""Every operation on whatever the Python layer lets through: the definition's results, and nothing outside the arrays.

Under the sanitizers this is the test that no kernel reads or writes beyond its arrays: every array and workspace is an
allocation of its own, of exactly its size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from devices import CPU_NAMES, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray
from synthetic_bundle import DINO_MEAN, DINO_STD, SAM_MEAN, SAM_STD

from samg_fast import ops, reference
from samg_fast.bundle import NetworkSpec
from samg_fast.device import CPU, Cpu, Device
from samg_fast.errors import InputError, SamgError
from samg_fast.geometry import Letterbox

DEVICES = [*CPU_NAMES, "simt-shuffled"]
on_every_device = pytest.mark.parametrize("name", DEVICES)


def fuzzed(examples: int) -> settings:
    """Take the same examples at every run."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=slow)


# Those of the operations' own tests: float32 sums of up to four normalised values; float16's rounding of values from 2
# to 4; cosines of at most 1; logits up to 40.
PREPROCESS_TOLERANCE = 2e-6
HALF_TOLERANCE = 2**-10
SIMILARITY_TOLERANCE = 2e-6
LOGITS_TOLERANCE = 2e-5

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


# ---------------------------------------------------------------- what is let through


SPEC = NetworkSpec(
    file="e.onnx",
    sha256="0" * 64,
    output="embedding",
    side=16,
    grid=4,
    channels=8,
    mean=SAM_MEAN,
    std=SAM_STD,
    resize="uint8",
)
NORMALISED = {"uint8": {"mean": SAM_MEAN, "std": SAM_STD}, "float": {"mean": DINO_MEAN, "std": DINO_STD}}
specs = st.builds(
    lambda side, resize: replace(SPEC, side=side, resize=resize, **NORMALISED[resize]),
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
        return  # no direction survives what is neither finite nor distinct
    wide = [each.astype(np.float32) for each in (*features, *maps)]
    for index in np.ndindex(lead):
        one = [each[index] if own or which > 1 else each for which, each in enumerate(wide)]
        tolerance = SIMILARITY_TOLERANCE * cancellation(one[3], grids[0])
        np.testing.assert_allclose(got[index], reference.similarity_map(*one, **options), atol=tolerance, rtol=0)


def cancellation(dino_map: NDArray[np.float32], grid: int) -> float:
    """Say how much larger than a lifted cell's rounding that of what it is mixed of can be.

    With A the ratio of their norms, it is A where a cell is summed from its channels, and A squared where its squared
    norm is made of products of neighbours, which the kernels do up to A = 4.
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
    most = min(size[0] * size[1], ops.MOST_POINTS)
    k = data.draw(st.one_of(st.integers(1, min(most, 4)), st.integers(1, most)), "k")
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
    # What follows from the logits is held to those that came, as one near 0 may be on either side.
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
    background=st.sampled_from(["none", "colour", "one picture", "a picture each"]),
    layout=layouts,
    in_place=st.booleans(),
)
def test_apply_mask(
    name: str, seed: int, lead: tuple[int, ...], size: tuple[int, int], background: str, layout: str, in_place: bool
) -> None:
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, (*lead, *size, 3), np.uint8)
    mask_bytes = random.choice(np.array([0, 0, 1, 2, 255], np.uint8), (*lead, *size))  # any byte may say true
    behind = {
        "none": None,
        "colour": random.integers(0, 256, 3, np.uint8),
        "one picture": random.integers(0, 256, (*size, 3), np.uint8),
        "a picture each": random.integers(0, 256, frame.shape, np.uint8),
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


# ---------------------------------------------------------------- what is not


def good_arguments() -> dict[str, dict[str, Any]]:
    """Arguments that each operation takes."""
    size = {"prompt_side": 12, "height": 4, "width": 3}
    ones, zeros = np.ones, np.zeros
    return {
        "preprocess": {"frames": zeros((2, 4, 3, 3), np.uint8), "out": [zeros((2, 3, 16, 16), np.float32)]},
        "similarity_map": {
            "sam_features": ones((2, 4), np.float32),
            "dino_features": ones((2, 3), np.float32),
            "sam_map": ones((4, 3, 3), np.float32),
            "dino_map": ones((3, 2, 2), np.float16),
            **size,
            "out": zeros((2, 4, 3), np.float32),
        },
        "topk_points": {
            "values": ones((2, 4, 3), np.float32),
            "k": 2,
            "largest": True,
            "box": zeros((2, 4), np.int32),
            "out": zeros((2, 2, 2), np.int32),
        },
        "resize_logits": {
            "low_res": ones((2, 3, 4, 4), np.float32),
            "weights": None,
            "iou": ones((2, 3), np.float32),
            **size,
        },
        "prompt_assembly": {
            "points": zeros((2, 4, 2), np.int32),
            "order": zeros((2, 3), np.int32),
            "labels": zeros((2, 3), np.int32),
            "boxes": zeros((2, 4), np.int32),
            "scale": (2.0, 1.0),
            "slots": 5,
        },
        "apply_mask": {
            "frame": zeros((2, 4, 3, 3), np.uint8),
            "mask": zeros((2, 4, 3), np.bool_),
            "background": zeros((4, 3, 3), np.uint8),
            "out": zeros((2, 4, 3, 3), np.uint8),
        },
    }


ARRAYS = [
    (operation, argument)
    for operation, arguments in good_arguments().items()
    for argument, value in arguments.items()
    if isinstance(value, (np.ndarray, list)) or argument == "weights"
]
NUMBERS = [
    (operation, argument)
    for operation, arguments in good_arguments().items()
    for argument, value in arguments.items()
    if isinstance(value, (int, float))
]
DTYPES = ["?", "u1", "i1", "i2", "u4", "i4", "i8", "f2", "f4", "f8", "c8", "O", "S3", "M8[s]", ">f4", ">i4", "u1,f4"]

arrays_of_any_kind = st.builds(
    lambda shape, dtype, layout: laid_out(np.zeros(shape, dtype), layout),
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.sampled_from(DTYPES),
    layouts,
)
no_arrays = st.sampled_from([None, 3, 2.5, "x", [[1.0]], (1, 2), object(), np.float32(1), np.zeros((), np.float32), {}])


def call(operation: str, arguments: dict[str, Any], device: Device) -> None:
    """Let an operation run or refuse; any other error is a fault."""
    specs: list[Any] = [[SPEC]] if operation == "preprocess" else []
    if specs:
        specs = [arguments.pop("frames"), *specs]
    with contextlib.suppress(SamgError):
        getattr(ops, operation)(*specs, **arguments, device=device)


@pytest.mark.parametrize("name", [CPU_NAMES[0], "simt-shuffled"])
@pytest.mark.parametrize(("operation", "argument"), ARRAYS)
@fuzzed(25)
@given(data=st.data())
def test_wrong_arrays_are_refused(name: str, operation: str, argument: str, data: st.DataObject) -> None:
    """Anything in one argument's place, or the right array but for its dtype, an axis or where it lies in memory."""
    arguments = good_arguments()[operation]
    listed = isinstance(arguments[argument], list)
    good = (
        np.ones((2, 3), np.float32) if argument == "weights" else np.asarray(arguments[argument])[0 if listed else ...]
    )
    shape = st.integers(0, good.ndim - 1).flatmap(
        lambda axis: st.integers(0, 5).map(lambda n: (*good.shape[:axis], n, *good.shape[axis + 1 :]))
    )
    value = data.draw(
        st.one_of(
            arrays_of_any_kind,
            no_arrays,
            st.builds(lambda dtype: np.zeros(good.shape, dtype), st.sampled_from(DTYPES)),
            st.builds(lambda lengths: np.zeros(lengths, good.dtype), shape),
            layouts.map(lambda layout: laid_out(good, layout)),
        )
    )
    arguments[argument] = [value] if listed else value
    with opened(name) as place:
        call(operation, arguments, place.device)


@pytest.mark.parametrize("value", [-(2**70), -1, 0, 1, 7, 64, np.int64(2), np.uint8(2)])
@pytest.mark.parametrize(("operation", "argument"), [each for each in NUMBERS if each[1] != "largest"])
def test_whole_numbers_run_or_are_refused(operation: str, argument: str, value: int) -> None:
    arguments = good_arguments()[operation]
    arguments.pop("out", None)
    call(operation, arguments | {argument: value}, CPU)


@pytest.mark.parametrize(("operation", "argument"), NUMBERS)
def test_what_is_no_whole_number_is_refused(operation: str, argument: str) -> None:
    arguments = good_arguments()[operation]
    arguments.pop("out", None)
    for value in (2.5, float("nan"), None, "3", [2]):
        with pytest.raises(SamgError, match=f"{argument} must"):
            getattr(ops, operation)(**arguments | {argument: value})


def test_largest_may_be_numpys_bool() -> None:
    arguments = good_arguments()["topk_points"]
    for value in (True, False):
        wanted = ops.topk_points(**arguments | {"largest": value}).tolist()
        assert ops.topk_points(**arguments | {"largest": np.bool_(value)}).tolist() == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64])
def test_a_box_of_numpys_whole_numbers(kind: Any) -> None:
    """Comparisons of arrays give them; small ones cannot hold the limits that a box is clipped to."""
    box: Any = tuple(kind(each) for each in (0, 1, 3, 4))
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert ops.topk_points(values, 1, False, box).tolist() == [[0, 1]]


def odd_layouts(array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the array where no C compiler would put one: off its alignment, and with strides that are no multiples."""
    off = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    fields = np.empty(len(array), [("tag", "u1"), ("value", array.dtype, array.shape[1:])])
    off[...], fields["value"][...] = array, array
    return {"misaligned": off, "fields of a record": fields["value"]}


@on_every_device
@pytest.mark.parametrize("layout", ["misaligned", "fields of a record"])
@pytest.mark.parametrize(
    ("operation", "argument"),
    [(operation, argument) for operation, argument in ARRAYS if argument not in ("out", "weights")],
)
def test_arrays_that_lie_oddly_in_memory(name: str, operation: str, argument: str, layout: str) -> None:
    """NumPy takes them like any other, from packed records and memory-mapped files."""
    arguments = good_arguments()[operation]
    arguments[argument] = odd_layouts(arguments[argument])[layout]
    specs = [arguments.pop("frames"), [SPEC]] if operation == "preprocess" else []
    with opened(name) as place:
        getattr(ops, operation)(*specs, **arguments, device=place.device)


@pytest.mark.parametrize("operation", [operation for operation, argument in ARRAYS if argument == "out"])
@pytest.mark.parametrize("fault", ["misaligned", "read-only"])
def test_outputs_that_cannot_be_written_are_refused(operation: str, fault: str) -> None:
    arguments = good_arguments()[operation]
    listed = operation == "preprocess"
    good = arguments["out"][0] if listed else arguments["out"]
    if good.dtype == np.uint8 and fault == "misaligned":
        pytest.skip("a byte is always aligned")
    out = odd_layouts(good)[fault] if fault == "misaligned" else laid_out(good, fault)
    arguments["out"] = [out] if listed else out
    specs = [arguments.pop("frames"), [SPEC]] if listed else []
    with pytest.raises(SamgError, match="out must"):
        getattr(ops, operation)(*specs, **arguments)
