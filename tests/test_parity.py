"""What parity says of networks that agree, nearly agree and do not, and what recording keeps."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samg_fast
from samg_fast.backends import Network
from samg_fast.backends.selection import first_fitting
from samg_fast.bundle import Bundle
from samg_fast.parity import Recorder, Run, compare_frames, compare_outputs, record, sample_frames, trace_frames

Floats = NDArray[np.float32]

WANTED: Floats = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
RUNS: list[Run] = [({"image": WANTED[:, :3]}, {"embedding": WANTED})]


def answers(values: Floats) -> Network:
    """Answer the same to all."""
    return lambda **_: {"embedding": values}


def compared(values: Floats, precision: str) -> Any:
    (row,) = compare_outputs(answers(values), RUNS, role="encoder", precision=precision, runtime="numpy")
    return row


def test_equal_outputs() -> None:
    row = compared(WANTED, "fp32")
    assert (row.largest, row.mean, row.holds) == (0, 0, True)
    assert row.cosine == pytest.approx(1)
    assert row.correlation == pytest.approx(1)
    assert (row.role, row.output, row.precision, row.runtime) == ("encoder", "embedding", "fp32", "numpy")
    assert row.to_dict()["holds"] is True


@pytest.mark.parametrize(("error", "holds"), [(0.9e-4, True), (1.1e-4, False)])
def test_one_value_that_is_off(error: float, holds: bool) -> None:
    """In float32 every value counts, relative to the range of all; in half precision one makes no difference."""
    values = WANTED.copy()
    values[0, 1, 2, 3] += error * np.ptp(WANTED)
    row = compared(values, "fp32")
    assert row.largest == pytest.approx(error, rel=1e-2)
    assert row.mean == pytest.approx(error / WANTED.size, rel=1e-2)
    assert row.holds is holds
    assert compared(values, "fp16").holds


@pytest.mark.parametrize(("noise", "fp16", "int8"), [(0.02, True, True), (0.1, False, True), (0.5, False, False)])
def test_noise(noise: float, fp16: bool, int8: bool) -> None:
    values = WANTED + noise * np.random.default_rng(1).standard_normal(WANTED.shape).astype(np.float32)
    assert compared(values, "fp16").holds is fp16
    assert compared(values, "int8").holds is int8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_one_value_that_is_not_finite(value: float, precision: str) -> None:
    values = WANTED.copy()
    values[0, 0, 0, 0] = value
    row = compared(values, precision)
    assert not row.holds
    assert row.largest == np.inf
    assert np.isnan(row.cosine)


def test_the_worst_run_counts() -> None:
    bad: list[Run] = [*RUNS, ({"image": WANTED[:, :3]}, {"embedding": -WANTED}), *RUNS]
    (row,) = compare_outputs(answers(WANTED), bad, role="encoder", precision="fp16", runtime="numpy")
    assert row.cosine == pytest.approx(-1)
    assert not row.holds


def test_a_recorder_keeps_copies() -> None:
    """A network may write into the same arrays again, and its caller too."""
    given, out = np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)

    def network(**inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        np.add(inputs["x"], 1, out=out)
        return {"y": out}

    recorder = Recorder(network)
    for value in (1, 2):
        given[:] = value
        assert recorder(x=given)["y"] is out
    assert [(inputs["x"][0, 0], outputs["y"][0, 0]) for inputs, outputs in recorder.runs] == [(1, 2), (2, 3)]


def test_recorded_frames_of_the_shipped_bundle() -> None:
    """What went through each network gives the same again, and so do whole frames."""
    bundle = Bundle.open(samg_fast.bundle.zoo.resolve("tiny"))
    backend = first_fitting("fp32")
    networks: dict[Any, Network] = {role: backend.open(bundle.onnx_path(role)) for role in ("encoder", "decoder")}
    samples = sample_frames(tasks=1)
    wanted, runs = record(bundle, backend.name, networks, samples)
    assert len(wanted) == len(samples[0].frames) == 2
    assert len(runs["encoder"]) == 1 + len(wanted)  # the reference and each frame
    assert len(runs["decoder"]) > len(wanted)
    for role, network in networks.items():
        rows = compare_outputs(network, runs[role], role=role, precision="fp32", runtime=backend.name)
        assert {each.output for each in rows} == set(runs[role][0][1])
        assert all(each.holds for each in rows)
    with samg_fast.load("tiny", precision="fp32") as segmenter:
        parity = compare_frames(trace_frames(segmenter, samples), wanted, precision="fp32", runtime=backend.name)
    assert (parity.frames, parity.moved, parity.first_iou) == (2, 0, 1)
    assert parity.points > 0


def test_it_needs_no_extra_for_exporting() -> None:
    """Engines are checked on machines that have neither PyTorch nor onnx."""
    code = "import sys, samg_fast.parity; sys.exit(', '.join({'torch', 'onnx', 'onnxscript'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
