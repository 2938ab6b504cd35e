"""Times of calls with several frames and objects."""

from __future__ import annotations

from benchmarks.calls import Call, markdown, measure
from benchmarks.common import Configuration
from samg_fast.bench.contenders import choose
from samg_fast.samples import load_pack


def test_every_kind_of_call_takes_its_turns() -> None:
    key = Configuration("tiny", "onnxruntime", "fp32", 1)
    pack = load_pack()
    shown = choose(pack, "video_hard", list(pack.tasks)[:2], 2)
    with key.open() as segmenter:
        times = measure({key: segmenter}, shown, [1, 3], [1, 2], rounds=1, warm_up=0)
    assert list(times) == [Call(key, 1, 1), Call(key, 1, 2), Call(key, 3, 1), Call(key, 3, 2)]
    assert {len(each) for each in times.values()} == {8}


def test_times_are_compared_with_one_frame_of_one_object() -> None:
    key = Configuration("tiny")
    times = {Call(key, 1, 1): [2.0, 2.0], Call(key, 16, 1): [8.0, 8.0]}
    lines = markdown(times, {key: "tiny"}).splitlines()
    assert lines[2] == "| tiny | 1 | 1 | **2.00** | 2.00–2.00 | 500 | 1.00 × |"
    assert lines[3] == "| tiny | 16 | 1 | **8.00** | 8.00–8.00 | 2000 | 4.00 × |"
