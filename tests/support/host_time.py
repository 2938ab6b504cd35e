"""How long the host is busy with a frame of a GPU, the GPU's part left out: `python tests/support/host_time.py`.

The real cuda-core runs on the stub of a driver, whose calls cost nothing and whose graphs do nothing; what is left is
Python and cuda-core. A real driver adds its own calls.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from samg_fast import _engine
from samg_fast.bundle.zoo import resolve
from samg_fast.samples import load_pack
from support import driver_stub, fake_cuda
from support.host_gpu import HostBackend, open_on

ROUNDS, TURNS = 25, 300


def main() -> None:
    """Print the best and the median of many rounds, in microseconds of this thread, whatever else runs."""
    driver = driver_stub.Driver()
    fake_cuda.install_kernels(pytest.MonkeyPatch(), fake_cuda.Kernels(driver, _engine, 1))
    backend = HostBackend(driver)
    segmenter = open_on(resolve("tiny"), backend)
    task = load_pack().tasks["walker_walk"]
    target, frame = segmenter.identify(task.reference, task.reference_mask), task.settings["video_hard"][0][0]
    there, stream = driver_stub.Dlpack(backend.cuda.upload(frame)), backend.cuda._device.create_stream()
    segmenter.segment(frame, target)
    driver.replay(False)
    _report("a frame on the GPU, on the caller's stream", lambda: segmenter.segment(there, target, stream=stream))
    _report("a frame on the GPU, without a stream", lambda: segmenter.segment(there, target))
    _report("a frame of the host", lambda: segmenter.segment(frame, target))


def _report(what: str, call: Callable[[], object]) -> None:
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(TURNS):
            call()
        times.append((time.thread_time() - start) / TURNS * 1e6)
    print(f"{what}: best {min(times):.1f}, median {median(times):.1f} µs")


if __name__ == "__main__":
    if "--here" in sys.argv:
        main()
    else:
        with tempfile.TemporaryDirectory() as folder:
            environment = driver_stub.environment(Path(folder))
            sys.exit(os.spawnve(os.P_WAIT, sys.executable, [sys.executable, __file__, "--here"], environment))
