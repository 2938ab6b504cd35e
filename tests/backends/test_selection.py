"""Which backend and device are selected on simulated machines, and the errors if none can be."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from samg_fast.backends import BackendStatus, Options, choose, preferred, selection
from samg_fast.backends.registry import REGISTRY, Row, files_of
from samg_fast.backends.selection import AGREEMENT
from samg_fast.bundle import Bundle, FileSpec, Manifest, Role
from samg_fast.devices.driver import Gpu, Gpus
from samg_fast.errors import BackendError, InputError, InputTypeError, MissingExtraError, SamgError

H100 = Gpu(0, "NVIDIA H100", (9, 0), 80 << 30)
ONE, TWO = Gpus((13, 0), (H100,)), Gpus((13, 0), (H100, Gpu(1, "NVIDIA L4", (8, 9), 24 << 30)))
NO_DRIVER = Gpus(reason="there is no NVIDIA driver (libcuda.so.1 cannot be loaded)")

TENSORRT = BackendStatus("tensorrt", True, "", "11.2", ("fp32", "fp16", "bf16"), "NVIDIA H100 (9.0)", "cuda")
ORT_GPU = BackendStatus("onnxruntime", True, "", "1.31", ("fp32", "fp16"), "NVIDIA H100 (9.0)", "cuda")
ORT = BackendStatus("onnxruntime", True, "", "1.31", ("fp32", "fp16", "int8"), "CPU")
OPENVINO = BackendStatus("openvino", True, "", "2026.4", ("fp32", "fp16", "bf16", "int8"), "a processor")
OLD = replace(OPENVINO, precisions=("fp32", "fp16", "int8"), detail="an old processor")


RTX = replace(TENSORRT, name="tensorrt-rtx", version="1.7", untried="it names compute capabilities 8.9, 12.0, not 9.0")


def absent(status: BackendStatus) -> BackendStatus:
    return BackendStatus(status.name, False, "not installed (No module named 'x')", device=status.device)


def hindered(status: BackendStatus, reason: str) -> BackendStatus:
    return replace(status, available=False, reason=reason, precisions=())


def machine(monkeypatch: pytest.MonkeyPatch, gpus: Gpus, *statuses: BackendStatus) -> None:
    """Simulate a machine: backends without a status are not installed, and `choose` returns the options."""
    there = {(status.name, status.device): status for status in statuses}

    def status(row: Row) -> BackendStatus:
        return there.get((row.name, row.device), absent(BackendStatus(row.name, False, device=row.device)))

    monkeypatch.setattr(selection, "_status", status)
    monkeypatch.setattr(selection, "find", lambda: gpus)
    monkeypatch.setattr(selection, "_make", lambda _, options: options)


@pytest.fixture
def manifest(bundle_folder: Path) -> Manifest:
    """Return the synthetic bundle's manifest with additional fp16 and int8 files."""
    files: dict[Role, FileSpec] = {"decoder": FileSpec(file="other.onnx", sha256="0" * 64)}
    held = Bundle.open(bundle_folder).manifest
    return replace(held, precisions=("fp32", "fp16", "int8"), precision_files={"fp16": files, "int8": files})


def chosen(name: str, precision: str, manifest: Manifest, **options: Any) -> Options:
    """Choose on the simulated machine."""
    options_of: Any = choose(name, precision, None, manifest, **options)
    assert isinstance(options_of, Options)
    return options_of


@pytest.mark.parametrize(
    ("gpus", "statuses", "expected"),
    [
        (ONE, (TENSORRT, ORT_GPU, OPENVINO, ORT), ("tensorrt", "cuda")),
        (ONE, (hindered(TENSORRT, "old driver"), replace(TENSORRT, name="tensorrt-rtx")), ("tensorrt-rtx", "cuda")),
        (ONE, (ORT, ORT_GPU, OPENVINO), ("onnxruntime", "cuda")),
        (ONE, (ORT, OPENVINO), ("openvino", "cpu")),
        (ONE, (ORT,), ("onnxruntime", "cpu")),
        (NO_DRIVER, (OPENVINO, ORT), ("openvino", "cpu")),
        (ONE, (RTX, ORT_GPU, OPENVINO), ("onnxruntime", "cuda")),
        (ONE, (RTX, OPENVINO), ("openvino", "cpu")),
    ],
)
def test_auto_takes_the_first_that_can_run(
    monkeypatch: pytest.MonkeyPatch,
    manifest: Manifest,
    gpus: Gpus,
    statuses: Sequence[BackendStatus],
    expected: tuple[str, str],
) -> None:
    machine(monkeypatch, gpus, *statuses)
    options = chosen("auto", "auto", manifest)
    assert (options.name, options.device, options.index, options.precision) == (*expected, 0, "fp32")
    taken = preferred(statuses)
    assert taken is not None
    assert (taken.name, taken.device) == expected


def test_nothing_is_preferred_if_nothing_runs() -> None:
    assert preferred([hindered(OPENVINO, "it has no CPU device")]) is None


def test_auto_skips_unverified_gpus(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, ONE, RTX, OPENVINO)
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert chosen("auto", "auto", manifest).name == "openvino"
    assert "tensorrt-rtx: it names compute capabilities 8.9, 12.0, not 9.0" in caplog.text
    assert chosen("tensorrt-rtx", "auto", manifest).name == "tensorrt-rtx"
    with pytest.raises(BackendError, match=r"no backend can run fp32 here: .*tensorrt-rtx: it names compute"):
        chosen("auto", "auto", manifest, device="cuda")


def test_auto_skips_backends_without_the_precision(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, ONE, TENSORRT, OPENVINO, ORT)
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert chosen("auto", "int8", manifest).name == "openvino"
    assert "backend auto: openvino 2026.4 on cpu at int8 (tensorrt: it offers fp32, fp16, bf16 on " in caplog.text


def test_only_openvino_runs_bf16_without_such_files(monkeypatch: pytest.MonkeyPatch, manifest: Manifest) -> None:
    machine(monkeypatch, ONE, TENSORRT, OPENVINO, ORT)
    assert chosen("auto", "bf16", manifest).name == "openvino"
    with pytest.raises(BackendError, match="cannot run bf16 here: it takes bf16 from files, and bundle synthetic has"):
        chosen("tensorrt", "bf16", manifest)
    files = {**manifest.precision_files, "bf16": manifest.precision_files["fp16"]}
    held = replace(manifest, precisions=(*manifest.precisions, "bf16"), precision_files=files)
    assert chosen("auto", "bf16", held).name == "tensorrt"


@pytest.mark.parametrize(
    ("device", "expected"), [("auto", ("cuda", 0)), ("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:1", ("cuda", 1))]
)
def test_device(monkeypatch: pytest.MonkeyPatch, manifest: Manifest, device: str, expected: tuple[str, int]) -> None:
    machine(monkeypatch, TWO, ORT_GPU, ORT)
    for name in ("auto", "onnxruntime"):
        options = chosen(name, "auto", manifest, device=device)
        assert (options.name, options.device, options.index) == ("onnxruntime", *expected)


def test_named_backend_logs_the_device_that_auto_chose(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, ONE, hindered(ORT_GPU, "it has no CUDAExecutionProvider"), ORT)
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert chosen("onnxruntime", "auto", manifest).device == "cpu"
    assert "device auto: onnxruntime 1.31 on cpu at fp32 (onnxruntime on cuda: it has no CUDAExec" in caplog.text


def test_nothing_is_logged_without_a_choice(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, ONE, ORT_GPU, ORT, OPENVINO)
    with caplog.at_level(logging.INFO, "samg_fast"):
        chosen("onnxruntime", "auto", manifest, device="cuda")
        chosen("openvino", "auto", manifest)
        machine(monkeypatch, NO_DRIVER, hindered(ORT_GPU, NO_DRIVER.reason), ORT)
        assert chosen("onnxruntime", "auto", manifest).device == "cpu"  # the only candidate
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("gpus", "statuses", "arguments", "error", "words"),
    [
        (
            NO_DRIVER,
            (OPENVINO,),
            ("auto", "auto", "cuda"),
            BackendError,
            "device is 'cuda', but there is no NVIDIA driver (libcuda.so.1 cannot be loaded)",
        ),
        (
            Gpus((13, 0), reason="the NVIDIA driver sees no GPU"),
            (hindered(TENSORRT, "the NVIDIA driver sees no GPU"),),
            ("tensorrt", "auto", "auto"),
            BackendError,
            "the tensorrt backend cannot run here: the NVIDIA driver sees no GPU",
        ),
        (
            ONE,
            (ORT_GPU,),
            ("onnxruntime", "auto", "cuda:1"),
            BackendError,
            "device is 'cuda:1', but there is only cuda:0 (NVIDIA H100)",
        ),
        (
            TWO,
            (ORT_GPU,),
            ("auto", "auto", "cuda:7"),
            BackendError,
            "device is 'cuda:7', but there is only cuda:0 (NVIDIA H100), cuda:1 (NVIDIA L4)",
        ),
        (
            ONE,
            (hindered(TENSORRT, "its driver is too old"),),
            ("auto", "auto", "cuda"),
            BackendError,
            "no backend can run on a GPU here: tensorrt: its driver is too old; tensorrt-rtx: not installed (No module "
            "named 'x'); onnxruntime on cuda: not installed (No module named 'x')",
        ),
        (
            ONE,
            (OLD, ORT),
            ("openvino", "bf16", "auto"),
            BackendError,
            "the openvino backend cannot run bf16 here: it offers fp32, fp16, int8 on an old processor, and the "
            "processor has no bfloat16",
        ),
        (
            NO_DRIVER,
            (OLD, ORT),
            ("auto", "bf16", "auto"),
            BackendError,
            "no backend can run bf16 here: openvino: it offers fp32, fp16, int8 on an old processor, and the processor "
            "has no bfloat16; onnxruntime on cpu: it offers fp32, fp16, int8 on CPU",
        ),
        (
            ONE,
            (ORT_GPU, hindered(ORT, "this ONNX Runtime has no CPUExecutionProvider")),
            ("onnxruntime", "int8", "auto"),
            BackendError,
            "the onnxruntime backend cannot run int8 here: on cuda, it offers fp32, fp16 on NVIDIA H100 (9.0); "
            "on cpu, this ONNX Runtime has no CPUExecutionProvider",
        ),
        (
            ONE,
            (hindered(OPENVINO, "it has no CPU device"),),
            ("openvino", "auto", "auto"),
            BackendError,
            "the openvino backend cannot run here: it has no CPU device",
        ),
        (
            ONE,
            (),
            ("tensorrt", "auto", "auto"),
            MissingExtraError,
            "the tensorrt backend needs packages that are not installed; run: pip install 'samg-fast[tensorrt]'",
        ),
        (
            ONE,
            (),
            ("torch-compiled", "auto", "auto"),
            InputError,
            "backend is 'torch-compiled', which samg-fast no longer has: use onnxruntime, the portable backend",
        ),
        (
            ONE,
            (),
            ("auto", "auto", "auto"),
            MissingExtraError,
            "running a bundle needs packages that are not installed; run: pip install 'samg-fast[cpu]'",
        ),
        (
            ONE,
            (OPENVINO,),
            ("openvino", "auto", "cuda"),
            InputError,
            "device is 'cuda', but the openvino backend runs on cpu only",
        ),
        (
            ONE,
            (TENSORRT,),
            ("tensorrt", "auto", "cpu"),
            InputError,
            "device is 'cpu', but the tensorrt backend runs on cuda only",
        ),
    ],
)
def test_refusals(
    monkeypatch: pytest.MonkeyPatch,
    manifest: Manifest,
    gpus: Gpus,
    statuses: Sequence[BackendStatus],
    arguments: tuple[str, str, str],
    error: type[SamgError],
    words: str,
) -> None:
    machine(monkeypatch, gpus, *statuses)
    name, precision, device = arguments
    with pytest.raises(error) as caught:
        chosen(name, precision, manifest, device=device)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        (
            {"name": "tensorflow"},
            InputError,
            "backend is 'tensorflow', expected one of auto, tensorrt, tensorrt-rtx, onnxruntime, openvino",
        ),
        ({"name": None}, InputError, "backend is None, expected one of"),
        ({"precision": "fp64"}, InputError, "precision is 'fp64', expected one of auto, fp32, fp16, bf16, int8"),
        ({"threads": 0}, InputError, "threads must be from 1 to 1024, or None to leave it to the backend, not 0"),
        ({"threads": 10**30}, InputError, "must be from 1 to 1024"),
        ({"threads": -2}, InputError, "threads must be from 1 to 1024, or None to leave it to the backend, not -2"),
        (
            {"threads": 1.5},
            InputTypeError,
            "threads must be a whole number, or None to leave it to the backend, not 1.5",
        ),
        (
            {"threads": True},
            InputTypeError,
            "threads must be a whole number, or None to leave it to the backend, not True",
        ),
        ({"device": "gpu"}, InputError, "device is 'gpu', expected auto, cpu, cuda, or cuda:1 for the second GPU"),
        ({"device": "cpu:1"}, InputError, "device is 'cpu:1', expected"),
        ({"device": "cuda:-1"}, InputError, "device is 'cuda:-1', expected"),
        ({"device": "cuda:"}, InputError, "device is 'cuda:', expected"),
        ({"device": 0}, InputError, "device is 0, expected"),
        ({"batches": 8}, InputTypeError, "batches is 8, expected a sequence of whole numbers"),
        ({"batches": "18"}, InputTypeError, "batches is '18', expected a sequence of whole numbers"),
        ({"batches": ()}, InputError, "batches is empty, expected one whole number or more"),
        ({"batches": (1, 0)}, InputError, "batches[1] must be from 1 to 4096, not 0"),
        ({"batches": (1, 99999)}, InputError, "batches[1] must be from 1 to 4096, not 99999"),
        ({"batches": (1, 2.5)}, InputTypeError, "batches[1] must be a whole number, not 2.5"),
    ],
)
def test_invalid_arguments(manifest: Manifest, changed: dict[str, Any], error: type[SamgError], words: str) -> None:
    arguments = {"name": "auto", "precision": "auto", "threads": None, **changed}
    with pytest.raises(error) as caught:
        choose(arguments.pop("name"), arguments.pop("precision"), arguments.pop("threads"), manifest, **arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("statuses", "agreement", "expected"),
    [
        ((OPENVINO,), {"bf16": 0.9964}, "bf16"),
        ((OPENVINO,), {"bf16": AGREEMENT}, "bf16"),
        ((OPENVINO,), {"bf16": 0.9899}, "fp32"),
        ((OPENVINO,), {}, "fp32"),
        ((OPENVINO,), {"int8": 1.0, "fp16": 1.0}, "fp32"),  # never faster than bf16; computed in float32
        ((OLD,), {"bf16": 1.0}, "fp32"),
        ((ORT,), {"fp16": 1.0, "int8": 1.0}, "fp32"),
        ((TENSORRT,), {"fp16": 0.995, "bf16": 0.995}, "fp16"),
        ((TENSORRT,), {"bf16": 0.995}, "fp32"),  # the bundle has no bf16 files, and TensorRT does not derive them
        ((ORT_GPU,), {"fp16": 0.995}, "fp16"),
    ],
)
def test_auto_takes_the_fastest_precision_that_agrees(
    monkeypatch: pytest.MonkeyPatch,
    manifest: Manifest,
    caplog: pytest.LogCaptureFixture,
    statuses: Sequence[BackendStatus],
    agreement: dict[str, float],
    expected: str,
) -> None:
    machine(monkeypatch, ONE, *statuses)
    with caplog.at_level(logging.INFO, "samg_fast"):
        assert chosen("auto", "auto", replace(manifest, agreement=agreement)).precision == expected
    said = [each for each in caplog.messages if each.startswith("precision auto: ")]
    if expected == "fp32":
        assert said == []
    else:
        figure = f"{agreement[expected]:.4f}"
        assert said == [f"precision auto: {expected}, whose masks have a mean IoU of {figure} with those at fp32"]


def test_a_named_precision_needs_no_agreement(monkeypatch: pytest.MonkeyPatch, manifest: Manifest) -> None:
    machine(monkeypatch, ONE, OPENVINO)
    assert chosen("auto", "bf16", manifest).precision == "bf16"
    assert chosen("auto", "fp32", replace(manifest, agreement={"bf16": 1.0})).precision == "fp32"


def test_precision_without_files(bundle_folder: Path) -> None:
    with pytest.raises(InputError, match="precision is 'int8', but bundle synthetic has files for fp32 only"):
        choose("auto", "int8", None, Bundle.open(bundle_folder).manifest)


def test_batches_are_sorted_and_unique(monkeypatch: pytest.MonkeyPatch, manifest: Manifest) -> None:
    machine(monkeypatch, ONE, TENSORRT)
    assert chosen("tensorrt", "auto", manifest, batches=[32, 1, 8, 8]).batches == (1, 8, 32)
    assert chosen("tensorrt", "auto", manifest).batches == (1, 8)
    assert chosen("tensorrt", "auto", replace(manifest, batch=4), batches=[1, 8]).batches == (4,)


def test_every_row_runs_fp32_and_has_an_extra() -> None:
    """`auto` can fall back to fp32 on every backend, and errors can name what to install."""
    extras = metadata("samg-fast").get_all("Provides-Extra")
    assert extras is not None
    for row in REGISTRY:
        assert row.fastest[-1] == "fp32"
        assert row.extra in extras
        assert importlib.util.find_spec(f"samg_fast.backends.{row.module}") is not None


def test_files_of_a_precision() -> None:
    assert [files_of("openvino", each) for each in ("fp32", "bf16", "int8")] == ["fp32", "fp32", "int8"]
    assert [files_of(name, "bf16") for name in ("tensorrt", "onnxruntime", "a backend of one's own")] == ["bf16"] * 3
