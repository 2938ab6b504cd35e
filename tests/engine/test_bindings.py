"""The compiled modules themselves: what their types refuse, workspaces, instruction sets, threads and forks."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import _engine
from samg_fast.ops import reference
from samg_fast.ops.geometry import chain_taps
from support.devices import _engine_simt

MODULES = [
    pytest.param(_engine, id="cpu"),
    pytest.param(
        _engine_simt,
        id="simt",
        marks=pytest.mark.skipif(
            _engine_simt is None, reason="this build has no _engine_simt: build with -DSAMG_TESTS=ON"
        ),
    ),
]
UNTOUCHED = 0x5C  # what outputs and workspaces are full of before a call


@pytest.fixture(params=MODULES)
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def same_instruction_set() -> Iterator[None]:
    before = _engine.instruction_set()
    yield
    _engine.use_instruction_set(before)


def output(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = UNTOUCHED
    return array


def is_untouched(array: NDArray[Any]) -> bool:
    return set(array.tobytes()) <= {UNTOUCHED}


def taps(n_in: int, n_out: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return tuple(chain_taps((n_in,), n_in, n_out))  # type: ignore[return-value]


def good_arguments() -> dict[str, dict[str, Any]]:
    """Arguments that each operation takes, by name and in order, but for the workspace and the launch."""
    ones, zeros = np.ones, np.zeros
    return {
        "preprocess": {
            "frames": zeros((2, 8, 9, 3), np.uint8),
            "fixed": False,
            "rows": taps(8, 6),
            "columns": taps(9, 7),
            "levels": ones((3, 256), np.float32),
            "out": output((2, 3, 7, 7)),
        },
        "similarity_map": {
            "sam_features": ones((1, 2, 4), np.float32),
            "dino_features": ones((1, 2, 3), np.float32),
            "sam_map": ones((2, 4, 5, 5), np.float32),
            "dino_map": ones((2, 3, 4, 4), np.float16),
            "lift": taps(4, 5),
            "rows": taps(5, 8),
            "columns": taps(5, 9),
            "out": output((2, 2, 8, 9)),
        },
        "topk_points": {
            "values": ones((2, 200, 200), np.float32),
            "k": 3,
            "largest": True,
            "boxes": zeros((2, 4), np.int32),
            "out": output((2, 3, 2), np.int32),
        },
        "resize_logits": {
            "low_res": ones((2, 3, 5, 5), np.float32),
            "weights": None,
            "iou": ones((2, 3), np.float32),
            "rows": taps(5, 8),
            "columns": taps(5, 9),
            "settled": output((2, 5, 5)),
            "logits": output((2, 8, 9)),
            "mask": output((2, 8, 9), np.bool_),
            "area": output((2,), np.int32),
            "box": output((2, 4), np.int32),
            "chosen": output((2,), np.int32),
        },
        "prompt_assembly": {
            "points": zeros((2, 4, 2), np.int32),
            "order": zeros((2, 3), np.int32),
            "labels": zeros((2, 3), np.int32),
            "boxes": zeros((2, 4), np.int32),
            "scale": (2.0, 1.0),
            "coords": output((2, 5, 2)),
            "slot_labels": output((2, 5)),
        },
        "apply_mask": {
            "frames": zeros((2, 4, 3, 3), np.uint8),
            "masks": zeros((2, 4, 3), np.bool_),
            "background": zeros((2, 4, 3, 3), np.uint8),
            "out": output((2, 4, 3, 3), np.uint8),
        },
    }


OUTPUTS = {"out", "settled", "logits", "mask", "area", "box", "chosen", "coords", "slot_labels"}
OPERATIONS = list(good_arguments())
ARRAYS = [
    (operation, argument)
    for operation, arguments in good_arguments().items()
    for argument, value in arguments.items()
    if isinstance(value, np.ndarray)
]
TAPS = [("preprocess", "rows"), ("similarity_map", "lift"), ("similarity_map", "rows"), ("resize_logits", "columns")]
# Any number of rows, any first stride; so a shorter first axis or another k is seen by the other arrays alone.
STRIDED = {("topk_points", "values"), ("topk_points", "out"), ("resize_logits", "low_res"), ("resize_logits", "iou")}


def call(engine: Any, operation: str, arguments: dict[str, Any], workspace: NDArray[Any] | None = None) -> int:
    """Run an operation with one thread, or on no stream."""
    arguments = dict(arguments)
    given = list(arguments.values())
    if operation == "preprocess":
        given = [given[0], [tuple(given[1:])]]
    space = np.empty(1 << 20, np.uint8) if workspace is None else workspace
    needed: int = getattr(engine, operation)(*given, space, 1 if engine is _engine else 0)
    return needed


def refuse(engine: Any, operation: str, arguments: dict[str, Any], **changed: Any) -> None:
    """Expect a refusal, before anything was written."""
    arguments = arguments | changed
    with pytest.raises((TypeError, ValueError)):
        call(engine, operation, arguments)
    assert all(is_untouched(each) for name, each in arguments.items() if name in OUTPUTS and name not in changed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_good_arguments_run(engine: Any, operation: str) -> None:
    arguments = good_arguments()[operation]
    call(engine, operation, arguments)
    for name in OUTPUTS & arguments.keys():
        assert not is_untouched(arguments[name]), name


@pytest.mark.parametrize(("operation", "argument"), ARRAYS)
def test_another_dtype_is_refused(engine: Any, operation: str, argument: str) -> None:
    arguments = good_arguments()[operation]
    good = arguments[argument]
    for dtype in (np.float64, np.int64, np.uint16, np.complex64, np.int8, np.float32, np.int32, np.uint8, np.float16):
        either = good.dtype in (np.float32, np.float16) and argument in {"sam_map", "dino_map", "low_res"}
        either = either or (operation == "preprocess" and argument == "out")
        if dtype == good.dtype or (either and dtype in (np.float32, np.float16)):
            continue
        refuse(engine, operation, good_arguments()[operation], **{argument: np.zeros(good.shape, dtype)})
    refuse(engine, operation, arguments, **{argument: good.astype(good.dtype.newbyteorder()).tolist()})


@pytest.mark.parametrize(("operation", "argument"), ARRAYS)
def test_another_number_of_axes_is_refused(engine: Any, operation: str, argument: str) -> None:
    good = good_arguments()[operation][argument]
    refuse(engine, operation, good_arguments()[operation], **{argument: good[None].copy()})
    refuse(engine, operation, good_arguments()[operation], **{argument: good[0].copy()})


@pytest.mark.parametrize(("operation", "argument"), ARRAYS)
def test_another_length_is_refused(engine: Any, operation: str, argument: str) -> None:
    """Every axis, one too short and one too long, but for an axis that no other argument has."""
    good = good_arguments()[operation][argument]
    alone = {
        ("preprocess", "frames"): {1, 2},  # the taps name pixels, which a module for GPUs cannot look at
        ("similarity_map", "dino_map"): set(),
        ("prompt_assembly", "points"): {1},
        ("topk_points", "values"): {1, 2},
    }.get((operation, argument), set())
    for axis in set(range(good.ndim)) - alone:
        for length in (good.shape[axis] - 1, good.shape[axis] + 1):
            shape = (*good.shape[:axis], length, *good.shape[axis + 1 :])
            one_or_all = argument in {"background", "sam_features", "dino_features", "points"}
            if one_or_all and axis == 0 and length in (1, 2):
                continue  # the same for all frames, or one for each
            refuse(engine, operation, good_arguments()[operation], **{argument: output(shape, good.dtype)})


@pytest.mark.parametrize(("operation", "argument"), ARRAYS)
def test_an_array_that_is_not_contiguous_is_refused(engine: Any, operation: str, argument: str) -> None:
    good = good_arguments()[operation][argument]
    stepped = np.repeat(good, 2, axis=-1)[..., ::2]
    if good.ndim > 1 or (operation, argument) not in STRIDED:
        refuse(engine, operation, good_arguments()[operation], **{argument: stepped})
    backwards = good[::-1]
    if good.shape[0] > 1:
        refuse(engine, operation, good_arguments()[operation], **{argument: backwards})


@pytest.mark.parametrize(("operation", "argument"), [each for each in ARRAYS if each[1] in OUTPUTS])
def test_an_output_that_is_read_only_is_refused(engine: Any, operation: str, argument: str) -> None:
    arguments = good_arguments()[operation]
    arguments[argument].flags.writeable = False
    refuse(engine, operation, arguments)
    assert is_untouched(arguments[argument])


@pytest.mark.parametrize(("operation", "argument"), TAPS)
def test_taps_that_do_not_fit_are_refused(engine: Any, operation: str, argument: str) -> None:
    source, weight = good_arguments()[operation][argument]
    more = np.zeros((source.shape[0], source.shape[1] + 1))
    for bad in (
        (source, weight[:, :-1].copy()),
        (source[:0], weight[:0]),
        (source.astype(np.int64), weight),
        (source, weight.astype(np.float64)),
        (source.T, weight.T),
        (source, None),
        (source,),
        (more.astype(np.int32), more.astype(np.float32)) if operation != "preprocess" else (),  # there it may be less
    ):
        refuse(engine, operation, good_arguments()[operation], **{argument: bad})


def test_numbers_out_of_range_are_refused(engine: Any) -> None:
    good = good_arguments()
    for k in (0, -1, 65, 2**31, 2.0):
        refuse(engine, "topk_points", good["topk_points"], k=k, out=output((2, 3, 2), np.int32))
    height, width = 2**15, 2**14 + 1
    untouched = mmap.mmap(-1, 4 * height * width)  # takes no memory until it is written
    huge = np.frombuffer(untouched, np.float32).reshape(1, height, width)
    refuse(engine, "topk_points", good["topk_points"], values=huge, boxes=None, out=output((1, 3, 2), np.int32))
    refuse(engine, "similarity_map", good["similarity_map"], sam_features=np.zeros((1, 65, 4), np.float32))
    refuse(engine, "resize_logits", good["resize_logits"], weights=np.ones((2, 3), np.float32))
    refuse(engine, "resize_logits", good["resize_logits"], iou=None)
    refuse(engine, "prompt_assembly", good["prompt_assembly"], scale=(1.0,))
    with pytest.raises(ValueError, match="inputs must be one or two"):
        engine.preprocess(good["preprocess"]["frames"], [], np.empty(0, np.uint8), 1)


def test_points_that_would_overlap_are_refused(engine: Any) -> None:
    shared = output((3, 2), np.int32)
    overlapping = np.lib.stride_tricks.as_strided(shared, (2, 3, 2), (0, 8, 4))
    refuse(engine, "topk_points", good_arguments()["topk_points"], out=overlapping)
    assert is_untouched(shared)


def test_rows_may_lie_apart(engine: Any) -> None:
    """Maps and their points: only the first axis has a stride of its own, and what is between stays as it was."""
    arguments = good_arguments()["topk_points"]
    values = np.random.default_rng(0).standard_normal((2, 2, 200, 200)).astype(np.float32)
    points = output((2, 5, 2), np.int32)
    call(engine, "topk_points", arguments | {"values": values[:, 1], "boxes": None, "out": points[:, :3]})
    for index in range(2):
        assert (points[index, :3] == reference.topk_points(values[index, 1], 3, True)).all()
    assert is_untouched(points[:, 3:])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_workspace_that_is_too_small_is_asked_for_and_nothing_is_written(engine: Any, operation: str) -> None:
    arguments = good_arguments()[operation]
    needed = call(engine, operation, arguments, np.empty(0, np.uint8))
    outputs = [value for name, value in arguments.items() if name in OUTPUTS]
    if needed == 0:
        assert not any(map(is_untouched, outputs))
        return
    small = output((needed - 1,), np.uint8)
    assert call(engine, operation, arguments, small) == needed
    assert is_untouched(small)
    assert all(map(is_untouched, outputs))
    # And as many bytes as it asks for are enough, and no more are written.
    surrounded = output((needed + 256,), np.uint8)
    start = -surrounded.ctypes.data % 64 + 64
    assert call(engine, operation, arguments, surrounded[start : start + needed]) == needed
    assert not any(map(is_untouched, outputs))
    assert is_untouched(surrounded[:start])
    assert is_untouched(surrounded[start + needed :])


def test_a_workspace_of_another_kind_is_refused(engine: Any) -> None:
    read_only = np.empty(1 << 20, np.uint8)
    read_only.flags.writeable = False
    for workspace in (read_only, np.empty(1 << 20, np.int8), np.empty((2, 1 << 20), np.uint8), None, b"x" * 4096):
        arguments = good_arguments()["similarity_map"]
        with pytest.raises((TypeError, ValueError)):
            engine.similarity_map(*arguments.values(), workspace, 0)
        assert is_untouched(arguments["out"])


def test_launches_of_any_number_of_threads() -> None:
    for threads in (0, 1, 3, 10**6):
        arguments = good_arguments()["topk_points"]
        _engine.topk_points(*arguments.values(), np.empty(0, np.uint8), threads)
        assert (arguments["out"] == 0).all()
    for threads in (-1, 1.0, None, 2**64):
        with pytest.raises(TypeError):
            _engine.topk_points(*good_arguments()["topk_points"].values(), np.empty(0, np.uint8), threads)


# ---------------------------------------------------------------- the process


def test_instruction_sets() -> None:
    names = _engine.instruction_sets()
    assert names[-1] == "baseline"
    assert len(set(names)) == len(names)
    for name in names:
        _engine.use_instruction_set(name)
        assert _engine.instruction_set() == name
    for unknown in ("abacus", "", "BASELINE"):
        with pytest.raises(ValueError, match="there is no such instruction set here"):
            _engine.use_instruction_set(unknown)
    with pytest.raises(TypeError):
        _engine.use_instruction_set(None)
    assert _engine.instruction_set() == names[-1]


def test_orders_of_the_executor() -> None:
    if _engine_simt is None:
        pytest.skip("this build has no _engine_simt: build with -DSAMG_TESTS=ON")
    with pytest.raises(ValueError, match="order must be forward, backward or shuffled"):
        _engine_simt.set_order("sideways", 1)


def test_the_gil_is_released(engine: Any) -> None:
    """Another thread runs Python during a call, where only a thread that gives the GIL away lets others run."""
    side = 1500 if engine is _engine else 150
    values = np.random.default_rng(0).standard_normal((2, side, side)).astype(np.float32)
    given = good_arguments()["topk_points"] | {"values": values, "boxes": None}
    arguments = *given.values(), np.empty(1 << 20, np.uint8), 1
    counted, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counted[0] += 1
            time.sleep(0)  # gives the GIL back

    before_this = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # seconds: nobody has to give it away
    counter = threading.Thread(target=count)
    counter.start()
    try:
        for _ in range(200):  # on a busy machine the other thread may be late
            before = counted[0]
            engine.topk_points(*arguments)
            if counted[0] > before:
                return
    finally:
        done.set()
        counter.join()
        sys.setswitchinterval(before_this)
    pytest.fail("no other thread ran during 200 calls")


def some_maps(seed: int) -> tuple[NDArray[np.float32], list[list[int]]]:
    values = np.random.default_rng(seed).standard_normal((1, 60, 70)).astype(np.float32)
    order = np.argsort(-values, axis=None, kind="stable")[:5]
    return values, [[int(i % 70), int(i // 70)] for i in order]


def points_of(engine: Any, values: NDArray[np.float32], launch: int) -> list[list[int]]:
    out = np.empty((1, 5, 2), np.int32)
    engine.topk_points(values, 5, True, None, out, np.empty(1 << 16, np.uint8), launch)
    found: list[list[int]] = out[0].tolist()
    return found


def test_threads_at_once(engine: Any) -> None:
    maps = [some_maps(seed) for seed in range(6)]
    launch = 2 if engine is _engine else 0

    def work(index: int) -> bool:
        values, wanted = maps[index % len(maps)]
        return all(points_of(engine, values, launch) == wanted for _ in range(5))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(12)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_after_threads(engine: Any) -> None:
    """Threads do not survive a fork; a call that needs them starts its own."""
    batch = np.random.default_rng(0).standard_normal((4, 600, 600)).astype(np.float32)  # enough for several threads
    launch = 4 if engine is _engine else 0
    batch = batch if engine is _engine else batch[:2, :60, :60].copy()

    def found() -> list[Any]:
        out = np.empty((len(batch), 5, 2), np.int32)
        engine.topk_points(batch, 5, True, None, out, np.empty(1 << 16, np.uint8), launch)
        points: list[Any] = out.tolist()
        return points

    wanted = found()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if found() == wanted else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found() == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_while_another_thread_is_in_a_call() -> None:
    """A child has none of the threads that worked in its parent, and waits for none."""
    values = np.random.default_rng(0).standard_normal((4, 600, 600)).astype(np.float32)
    wanted = points_of(_engine, values[:1], 1)
    done = threading.Event()

    def keep_busy() -> None:
        out, space = np.empty((4, 64, 2), np.int32), np.empty(0, np.uint8)
        while not done.is_set():
            _engine.topk_points(values, 64, True, None, out, space, 4)

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                try:
                    out = np.empty((4, 5, 2), np.int32)
                    _engine.topk_points(values, 5, True, None, out, np.empty(0, np.uint8), 4)
                    os._exit(0 if out[0].tolist() == wanted else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        other.join()
