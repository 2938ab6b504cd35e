"""What the NVIDIA driver says about GPUs: on fakes of it, and on whatever is here."""

from __future__ import annotations

import builtins
import importlib.util
import re
import sys
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from samg_fast.devices import driver
from samg_fast.devices.driver import Gpu, Gpus
from samg_fast.errors import BackendError
from support import gpu_machine


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


class Attribute(IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class Driver:
    """The driver: GPUs by name, compute capability and bytes of memory."""

    CUdevice_attribute = Attribute

    def __init__(
        self,
        *found: tuple[bytes, tuple[int, int], int],
        version: int = 13000,
        init: Status = Status.CUDA_SUCCESS,
        memory: tuple[Any, ...] = (Status.CUDA_SUCCESS, 300 << 20, 1 << 30),
    ) -> None:
        self._found, self._version, self._init = found, version, init
        self.cuMemGetInfo = lambda: memory
        self._ready = False

    def cuInit(self, flags: int) -> tuple[Status]:  # noqa: N802 (its name)
        assert flags == 0
        self._ready = self._init == Status.CUDA_SUCCESS
        return (self._init,)

    def cuDriverGetVersion(self) -> tuple[Status, int]:  # noqa: N802
        return Status.CUDA_SUCCESS, self._version

    def cuDeviceGetCount(self) -> tuple[Status, int]:  # noqa: N802
        assert self._ready
        return Status.CUDA_SUCCESS, len(self._found)

    def cuDeviceGet(self, index: int) -> tuple[Status, int]:  # noqa: N802
        return Status.CUDA_SUCCESS, index

    def cuDeviceGetAttribute(self, attribute: Attribute, device: int) -> tuple[Status, int]:  # noqa: N802
        return Status.CUDA_SUCCESS, self._found[device][1][attribute - 75]

    def cuDeviceGetName(self, size: int, device: int) -> tuple[Status, bytes]:  # noqa: N802
        return Status.CUDA_SUCCESS, self._found[device][0].ljust(size, b"\0")

    def cuDeviceTotalMem(self, device: int) -> tuple[Status, int]:  # noqa: N802
        return Status.CUDA_SUCCESS, self._found[device][2]


def install(monkeypatch: pytest.MonkeyPatch, fake: Any) -> None:
    """Put a fake where the driver's bindings would be."""
    bindings = ModuleType("cuda.bindings")
    bindings.__dict__["driver"] = fake
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)


def test_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        Driver((b"NVIDIA H100 80GB HBM3", (9, 0), 80 << 30), (b"NVIDIA L4", (8, 9), 24 << 30), version=12080),
    )
    h100, l4 = Gpu(0, "NVIDIA H100 80GB HBM3", (9, 0), 80 << 30), Gpu(1, "NVIDIA L4", (8, 9), 24 << 30)
    assert driver.find() == Gpus((12, 8), (h100, l4), "")
    assert (h100.capability, l4.capability) == ("9.0", "8.9")


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (Driver(init=Status.CUDA_ERROR_NO_DEVICE), "the NVIDIA driver sees no GPU"),
        (Driver(), "the NVIDIA driver sees no GPU"),
        (
            Driver(init=Status.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH),
            "the NVIDIA driver reports CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        ),
    ],
)
def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch, fake: Driver, reason: str) -> None:
    install(monkeypatch, fake)
    assert driver.find() == Gpus((13, 0), (), reason)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise RuntimeError("cuda can only be found via system search")

    install(monkeypatch, SimpleNamespace(cuDriverGetVersion=missing, cuMemGetInfo=missing))
    assert driver.find() == Gpus(reason="there is no NVIDIA driver (libcuda.so.1 cannot be loaded)")
    with pytest.raises(BackendError, match=r"the memory of GPU 0 cannot be told: the NVIDIA driver reports cuda can"):
        driver.free_memory(0)


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert driver.find().reason == "cuda-bindings is not installed; run: pip install 'samg-fast[cuda]'"


def test_bindings_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "cuda.bindings":
            raise ImportError("undefined symbol")
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert driver.find() == Gpus(reason="cuda-bindings cannot be loaded (undefined symbol)")


def test_what_is_here() -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    found = driver.find()
    assert bool(found.reason) != bool(found.found)
    for index, gpu in enumerate(found.found):
        assert gpu.index == index
        assert gpu.name
        assert gpu.compute_capability >= (3, 0)
        assert gpu.memory > 1 << 30


@pytest.mark.parametrize(
    ("supported", "needed", "problem"),
    [
        ((13, 0), (13, 0), ""),
        ((13, 0), (13, 3), ""),  # minor versions of one major version run each other's code
        ((13, 0), (12, 9), ""),
        (
            (12, 9),
            (13, 0),
            "the NVIDIA driver supports CUDA 12.9, but this is made for CUDA 13.0: install a newer driver",
        ),
    ],
)
def test_driver_for_a_library(supported: tuple[int, int], needed: tuple[int, int], problem: str) -> None:
    assert driver.check_driver("this", needed, Gpus(supported, (Gpu(0, "a GPU", (9, 0), 1),))) == problem


def test_a_driver_that_is_not_there_is_not_too_old() -> None:
    assert driver.check_driver("this", (13, 0), Gpus(reason="there is no NVIDIA driver")) == "there is no NVIDIA driver"


@pytest.mark.parametrize(
    ("supported", "built", "reason"),
    [
        ((13, 0), 13000, ""),
        ((13, 0), 13020, ""),  # compiled for what it runs on: no driver of that major version is too old
        ((13, 0), 12080, ""),
        (
            (12, 4),
            13000,
            "the NVIDIA driver supports CUDA 12.4, but samg_fast._engine_cuda is made for CUDA 13.0: install a newer "
            "driver",
        ),
    ],
)
def test_kernels_and_the_driver(
    monkeypatch: pytest.MonkeyPatch, supported: tuple[int, int], built: int, reason: str
) -> None:
    gpu_machine.put(monkeypatch, gpu_machine.ADA, driver=supported)
    gpu_machine.put_kernels(monkeypatch, built)
    assert driver.check_kernels(driver.find()) == reason


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("cuda.core", r"cuda-core cannot be loaded \(.+\); run: pip install 'samg-fast\[cuda\]'"),
        (
            "samg_fast._engine_cuda",
            r"samg_fast\._engine_cuda cannot be loaded \(.+\): install the package where nvcc is found",
        ),
    ],
)
def test_kernels_that_are_not_there(monkeypatch: pytest.MonkeyPatch, module: str, reason: str) -> None:
    gpu_machine.put(monkeypatch, gpu_machine.ADA)
    monkeypatch.setitem(sys.modules, module, None)
    assert re.fullmatch(reason, driver.check_kernels(driver.find()))
    assert driver.check_kernels(Gpus(reason="there is no NVIDIA driver")) == "there is no NVIDIA driver"


@pytest.mark.skipif(importlib.util.find_spec("samg_fast._engine_cuda") is None, reason="this build has no CUDA module")
def test_the_kernels_say_what_they_were_built_with() -> None:
    """Without this, only the first kernel would show a build that the driver cannot run."""
    engine = importlib.import_module("samg_fast._engine_cuda")
    assert 12000 <= engine.runtime_version < 20000


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver())
    assert driver.free_memory(0) == 300 << 20
    driver.check_memory("the engine", 300 << 20, 0)
    words = r"the engine needs 301 MiB of GPU 2's memory, and 300 MiB are free"
    with pytest.raises(BackendError, match=words):
        driver.check_memory("the engine", (300 << 20) + 1, 2)


def test_memory_that_the_driver_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver(memory=(Status.CUDA_ERROR_INVALID_CONTEXT, 0, 0)))
    with pytest.raises(
        BackendError, match="GPU 0 cannot be told: the NVIDIA driver reports CUDA_ERROR_INVALID_CONTEXT"
    ):
        driver.check_memory("the engine", 1, 0)


def test_the_fake_is_called_as_the_real_one() -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    for name in [name for name in vars(Driver) if name.startswith("cu")]:
        assert callable(getattr(real, name))
    for attribute in Attribute:
        assert int(getattr(real.CUdevice_attribute, attribute.name)) == attribute
    for status in Status:
        assert int(getattr(real.CUresult, status.name)) == status
