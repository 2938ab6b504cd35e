"""`samg_fast.load`: from a name to a segmenter, and what it says of what it chose."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import samg_fast
from samg_fast.backends import probe
from samg_fast.metrics import iou
from samg_fast.samples import load_pack

pytest.importorskip("openvino")


def bf16_runs_here() -> bool:
    return any(each.name == "openvino" and "bf16" in each.precisions for each in probe())


def test_tiny_runs_in_bf16_by_itself_where_the_processor_has_it(caplog: pytest.LogCaptureFixture) -> None:
    """It says so, and its masks are those of fp32 as nearly as the manifest states."""
    walker = load_pack().tasks["walker_walk"]
    frames = walker.settings["video_hard"][0]
    expected = "bf16" if bf16_runs_here() else "fp32"
    with caplog.at_level(logging.INFO, "samg_fast"), samg_fast.load("tiny", device="cpu", threads=1) as chosen:
        assert (chosen.backend, chosen.precision) == ("openvino", expected)
        agreement = chosen.bundle.manifest.agreement["bf16"]
        masks = [
            each.mask for each in chosen.segment_batch(frames, chosen.identify(walker.reference, walker.reference_mask))
        ]
    assert f"bundle tiny on openvino {chosen.describe().split('openvino ')[1].split(',')[0]}, {expected}" in caplog.text
    if expected == "bf16":
        assert f"precision auto: bf16, whose masks have a mean IoU of {agreement:.4f} with those at fp32" in caplog.text
    with samg_fast.load("tiny", backend="openvino", precision="fp32", threads=1) as exact:
        target = exact.identify(walker.reference, walker.reference_mask)
        wanted = [each.mask for each in exact.segment_batch(frames, target)]
    assert np.mean([iou(a, b) for a, b in zip(masks, wanted, strict=True)]) >= 0.99


def test_a_bundle_that_states_nothing_runs_in_fp32(bundle_folder: Path) -> None:
    with samg_fast.load(bundle_folder, device="cpu", threads=1) as segmenter:
        assert segmenter.precision == "fp32"


@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_a_backend_that_is_gone_names_another(name: str) -> None:
    with pytest.raises(samg_fast.InputError) as caught:
        samg_fast.load("tiny", backend=name)
    assert (
        str(caught.value)
        == f"backend is {name!r}, which samg-fast no longer has: use onnxruntime, the portable backend"
    )


NO_HOME = """
import os, pathlib, pwd, sys

def getpwuid(user):
    raise KeyError(user)

pwd.getpwuid = getpwuid
import samg_fast
samg_fast.load("tiny", device="cpu", backend=sys.argv[1]).close()
assert "HOME" not in os.environ
try:
    print(pathlib.Path.home())
except RuntimeError:
    sys.exit(7)
"""


@pytest.mark.skipif(os.name != "posix", reason="this system knows its users by other means")
@pytest.mark.parametrize("backend", ["auto", "openvino", "onnxruntime"])
def test_a_user_without_a_home_has_tiny(backend: str) -> None:
    """As in a container that runs as a number that its list of users does not have."""
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    variables = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", NO_HOME, backend]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
