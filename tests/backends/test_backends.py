"""Backends: selection with the real libraries, and the protocol of an opened network."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samg_fast.backends import choose, probe, selection
from samg_fast.backends.registry import REGISTRY, Row
from samg_fast.bundle import Bundle, FileSpec, Manifest, Role
from samg_fast.devices.driver import Gpus
from samg_fast.errors import BackendError, MissingExtraError
from support import fake_tensorrt, gpu_machine


@pytest.fixture
def manifest(bundle_folder: Path) -> Manifest:
    """Read the synthetic bundle's manifest."""
    return Bundle.open(bundle_folder).manifest


def with_int8(manifest: Manifest) -> Manifest:
    files: dict[Role, FileSpec] = {"decoder": FileSpec(file="decoder-int8.onnx", sha256="0" * 64)}
    return replace(manifest, precisions=("fp32", "int8"), precision_files={"int8": files})


def test_probe() -> None:
    found = probe()
    assert [(each.name, each.device) for each in found] == [(each.name, each.device) for each in REGISTRY]
    for status in found:
        assert status.available == bool(status.precisions)
        assert status.available != bool(status.reason)


def test_probe_without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, *LIBRARIES)
    extras = {(status.name, status.device): status.reason for status in probe()}
    for (name, device), reason in extras.items():
        extra = {"openvino": "cpu", "onnxruntime": "onnxruntime-gpu" if device == "cuda" else "cpu"}
        assert f"run: pip install 'samg-fast[{extra.get(name, name)}]'" in reason
        assert "not installed" in reason


LIBRARIES = ("tensorrt", "tensorrt_rtx", "openvino", "onnxruntime")


def block(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that libraries are not installed."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    for each in REGISTRY:
        if each.module != "tensorrt":  # this package imports its libraries lazily
            monkeypatch.delitem(sys.modules, f"samg_fast.backends.{each.module}", raising=False)


def test_installed_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Row) -> Any:
        raise ImportError("libopenvino.so.2600: cannot open shared object file")

    monkeypatch.setattr(Row, "load", broken)
    status = probe()[0]
    assert not status.available
    assert status.reason.startswith("it cannot be loaded (libopenvino.so.2600: cannot open shared object file); run: ")


def test_named(backend: str, manifest: Manifest) -> None:
    chosen = choose(backend, "auto", 2, manifest, device="cpu")
    assert (chosen.name, chosen.precision, chosen.threads) == (backend, "fp32", 2)


def test_auto_without_a_gpu_logs_its_choice(
    manifest: Manifest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(selection, "find", lambda: Gpus(reason="there is no NVIDIA driver"))
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert choose("auto", "auto", None, manifest).name == "openvino"
    assert "backend auto: openvino " in caplog.text
    assert "on cpu at fp32 (no GPU: there is no NVIDIA driver)" in caplog.text


def test_gpu_without_cuda_kernels(
    manifest: Manifest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a driver and a library, but a package built without nvcc, frames run on the CPU."""
    pytest.importorskip("openvino")
    fake_tensorrt.install(monkeypatch, "tensorrt-rtx", "1.7.1.116")
    gpu_machine.put(monkeypatch, gpu_machine.ADA)
    assert next(each for each in probe() if each.name == "tensorrt-rtx").available
    monkeypatch.setitem(sys.modules, "samg_fast._engine_cuda", None)
    why = r"samg_fast\._engine_cuda cannot be loaded \(.+\): install the package where nvcc is found"
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert choose("auto", "auto", None, manifest).name == "openvino"
    assert re.search(rf"backend auto: openvino .*tensorrt-rtx: {why}", caplog.text)
    with pytest.raises(BackendError, match=rf"the tensorrt-rtx backend cannot run here: {why}"):
        choose("tensorrt-rtx", "auto", None, manifest)


def test_auto_logs_why_it_skipped_the_first(
    manifest: Manifest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    block(monkeypatch, "openvino")
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert choose("auto", "auto", None, manifest, device="cpu").name == "onnxruntime"
    assert "openvino: not installed" in caplog.text


def test_nothing_installed(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, *LIBRARIES)
    with pytest.raises(MissingExtraError, match=r"running a bundle .*pip install 'samg-fast\[cpu\]'"):
        choose("auto", "auto", None, manifest, device="cpu")
    with pytest.raises(MissingExtraError, match=r"the openvino backend .*pip install 'samg-fast\[cpu\]'"):
        choose("openvino", "auto", None, manifest)
    with pytest.raises(
        MissingExtraError, match=r"the onnxruntime backend .*pip install 'samg-fast\[onnxruntime-gpu\]'"
    ):
        choose("onnxruntime", "auto", None, manifest, device="cuda")
    with pytest.raises(MissingExtraError, match=r"the tensorrt-rtx backend .*pip install 'samg-fast\[tensorrt-rtx\]'"):
        choose("tensorrt-rtx", "auto", None, manifest)


def test_no_bf16_in_onnxruntime(manifest: Manifest) -> None:
    pytest.importorskip("onnxruntime")
    refused = "the onnxruntime backend cannot run bf16 here: it offers fp32, fp16, int8 on CPU$"
    with pytest.raises(BackendError, match=refused):
        choose("onnxruntime", "bf16", None, manifest, device="cpu")


def test_int8_where_the_bundle_has_it(backend: str, manifest: Manifest) -> None:
    assert choose(backend, "int8", None, with_int8(manifest), device="cpu").precision == "int8"


def test_unreadable_onnx(backend: str, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not an ONNX file")
    with pytest.raises(BackendError, match=rf"{backend} cannot read broken\.onnx: ") as caught:
        choose(backend, "auto", None, manifest, device="cpu").open(tmp_path / "broken.onnx")
    assert "\n" not in str(caught.value)


def test_wrong_inputs(backend: str, bundle_folder: Path, manifest: Manifest) -> None:
    network = choose(backend, "auto", 1, manifest, device="cpu").open(bundle_folder / "encoder.onnx")
    for inputs in ({"picture": (1, 3, 64, 64)}, {"image": (1, 4, 64, 64)}, {}):
        with pytest.raises(BackendError, match=rf"{backend} cannot run encoder\.onnx: "):
            network(**{name: np.zeros(shape, np.float32) for name, shape in inputs.items()})


def test_same_array_again(backend: str, bundle_folder: Path, manifest: Manifest) -> None:
    """An array that is changed and passed again gives new outputs, also if it is strided or of another dtype."""
    network = choose(backend, "auto", 1, manifest, device="cpu").open(bundle_folder / "encoder.onnx")
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 1, 3, 64, 64)).astype(np.float32)

    def run(array: Any) -> Any:
        return network(image=array)["embedding"].copy()

    wanted = run(first), run(second)
    assert (wanted[0] != wanted[1]).any()
    buffer = first.copy()
    assert (run(buffer) == wanted[0]).all()
    buffer[:] = second
    assert (run(buffer) == wanted[1]).all()
    assert (run(np.asfortranarray(first)) == wanted[0]).all()
    assert (run(first.astype(np.float64)) == wanted[0]).all()
    assert (run(buffer) == wanted[1]).all()
    np.testing.assert_allclose(run(np.concatenate([first, second])), np.concatenate(wanted), atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batch_equals_single_images(backend: str, bundle_folder: Path, manifest: Manifest, threads: int) -> None:
    """A batch gives the same as single images, however it is split over threads, also from a reused array."""
    network = choose(backend, "auto", threads, manifest, device="cpu").open(bundle_folder / "encoder.onnx")
    images = np.random.default_rng(0).standard_normal((7, 3, 64, 64)).astype(np.float32)
    wanted = np.concatenate([network(image=image[None])["embedding"].copy() for image in images])
    for count in (7, 4, 2, 7):
        batch = images[:count].copy()
        np.testing.assert_allclose(network(image=batch)["embedding"], wanted[:count], atol=1e-6)
        batch[:] = images[-count:]
        np.testing.assert_allclose(network(image=batch)["embedding"], wanted[-count:], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_threads_do_not_mix(backend: str, bundle_folder: Path, manifest: Manifest, batch: int) -> None:
    network = choose(backend, "auto", batch, manifest, device="cpu").open(bundle_folder / "encoder.onnx")
    images = np.random.default_rng(0).standard_normal((4, batch, 3, 64, 64)).astype(np.float32)
    wanted = [network(image=image)["embedding"].copy() for image in images]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(30):
            if (network(image=images[index])["embedding"] != wanted[index]).any():
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


ENDED = """
import gc, signal
import samg_fast
one, other = (samg_fast.load("tiny", backend="openvino", threads=1) for _ in range(2))
for _ in range(2):
    one.close()
    one, other = other, None
    gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no processes to cores")
def test_threads_stay_on_the_cores_of_the_process(backend: str, bundle_folder: Path) -> None:
    program = """
import os, sys
import numpy as np
import samg_fast

core = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
with samg_fast.load(sys.argv[1], backend=sys.argv[2], device="cpu") as segmenter:
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 90, 3), np.uint8)
    target = segmenter.identify(frames[0], np.ones((90, 90), bool))
    before = len(os.listdir("/proc/self/task"))
    segmenter.segment_batch(frames, target)
    threads = [int(each) for each in os.listdir("/proc/self/task")]
    assert all(os.sched_getaffinity(each) == {core} for each in threads), threads
"""
    command = [sys.executable, "-c", program, str(bundle_folder), backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_onnxruntime_has_a_thread_for_each_core_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    session = pytest.importorskip("samg_fast.backends.onnxruntime.session")
    monkeypatch.setattr(session, "physical_cores", lambda: 3)
    assert session.session_options().intra_op_num_threads == 3
    assert session.session_options(2).intra_op_num_threads == 2


def test_ctrl_c_works_after_segmenters_are_deleted() -> None:
    """They are deleted in the order they were opened, which crashes with OpenVINO's own cores."""
    pytest.importorskip("openvino", reason="it is OpenVINO that is tested")
    ended = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
