"""Wrong arguments: an operation either runs or refuses them in a sentence that names them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.devices.base import Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import SamgError
from support.devices import CPU_NAMES, opened
from support.fuzzing import SPEC, fuzzed, laid_out, layouts, on_every_device


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
    """Call an operation, which may run or refuse; any other error is a fault."""
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
    """Any object as one argument, or an array that is wrong in dtype, an axis or layout only."""
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
    """NumPy functions return them; the small kinds cannot hold the limits that a box is clipped to."""
    box: Any = tuple(kind(each) for each in (0, 1, 3, 4))
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert ops.topk_points(values, 1, False, box).tolist() == [[0, 1]]


def odd_layouts(array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the array misaligned, and with strides that are no multiple of its item size."""
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
    """Packed records and memory-mapped files give such arrays, and NumPy takes them like any other."""
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
