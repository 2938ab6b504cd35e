"""The NVIDIA GPUs and driver of this machine, as the driver reports them, and what they must have."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from samg_fast.errors import BackendError

__all__ = ["Gpu", "Gpus", "check_driver", "check_kernels", "check_memory", "find", "free_memory", "load_kernels"]

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_NO_GPU = "the NVIDIA driver sees no GPU"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Parameters
    ----------
    index : int
        Its number, as in ``cuda:0``.
    name : str
    compute_capability : tuple of int
        Such as (8, 9).
    memory : int
        Its size in bytes.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory: int

    @property
    def capability(self) -> str:
        """The compute capability as ``"8.9"``."""
        return f"{self.compute_capability[0]}.{self.compute_capability[1]}"


@dataclass(frozen=True)
class Gpus:
    """What the driver reports.

    Parameters
    ----------
    driver : tuple of int
        The newest CUDA version that it supports, such as (13, 0); empty without a driver.
    found : tuple of Gpu
    reason : str
        Why no GPU was found; empty if one was.
    """

    driver: tuple[int, ...] = ()
    found: tuple[Gpu, ...] = ()
    reason: str = ""


def find() -> Gpus:
    """Ask the driver which GPUs there are; `Gpus.reason` says what is missing, and nothing is raised."""
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError:
        return Gpus(reason="cuda-bindings is not installed; run: pip install 'samg-fast[cuda]'")
    except ImportError as error:
        return Gpus(reason=f"cuda-bindings cannot be loaded ({error})")
    try:
        number = _ask(driver.cuDriverGetVersion)
    except _DriverError as error:
        return Gpus(reason=f"the NVIDIA driver reports {error}")
    except RuntimeError:  # cuda-bindings loads the driver at the first call
        return Gpus(reason="there is no NVIDIA driver (libcuda.so.1 cannot be loaded)")
    version = _version(number)
    try:
        _ask(driver.cuInit, 0)
        gpus = tuple(_describe(driver, index) for index in range(_ask(driver.cuDeviceGetCount)))
    except _DriverError as error:
        none = error.status == _NO_DEVICE
        return Gpus(version, reason=_NO_GPU if none else f"the NVIDIA driver reports {error}")
    return Gpus(version, gpus, "" if gpus else _NO_GPU)


def free_memory(index: int) -> int:
    """Return how many bytes of a GPU are free; it must be the current one, as inside `Cuda.use`.

    Raises
    ------
    BackendError
        The driver does not say.
    """
    from cuda.bindings import driver

    try:
        return int(_ask(driver.cuMemGetInfo)[0])
    except (_DriverError, RuntimeError) as error:
        raise BackendError(f"the memory of GPU {index} cannot be told: the NVIDIA driver reports {error}") from error


def check_driver(what: str, needed: tuple[int, int], gpus: Gpus) -> str:
    """Return why the driver cannot run a library built for a CUDA version; empty if it can.

    A driver runs what was built for its own major version of CUDA, in any minor version, or for an earlier one.
    """
    if gpus.reason:
        return gpus.reason
    if gpus.driver[0] >= needed[0]:
        return ""
    has, wants = (".".join(map(str, each)) for each in (gpus.driver, needed))
    return f"the NVIDIA driver supports CUDA {has}, but {what} is made for CUDA {wants}: install a newer driver"


def check_kernels(gpus: Gpus) -> str:
    """Return why this package's kernels, which every backend needs, cannot run on a GPU here; empty if they can.

    The driver must support the major version of the nvcc that built them, as they are linked with its CUDA runtime. A
    GPU that is newer than all that they were compiled for may also need a driver of the nvcc's minor version, as the
    driver then compiles them itself; that is not checked here.
    """
    if gpus.reason:
        return gpus.reason
    try:
        importlib.import_module("cuda.core")
    except ImportError as error:
        return f"cuda-core cannot be loaded ({error}); run: pip install 'samg-fast[cuda]'"
    try:
        engine = load_kernels()
    except BackendError as error:
        return str(error)
    return check_driver("samg_fast._engine_cuda", _version(engine.runtime_version), gpus)


def load_kernels() -> ModuleType:
    """Return the module of this package's CUDA kernels.

    Raises
    ------
    BackendError
        It was not built, or cannot be loaded.
    """
    try:
        return importlib.import_module("samg_fast._engine_cuda")
    except ImportError as error:
        raise BackendError(
            f"samg_fast._engine_cuda cannot be loaded ({error}): install the package where nvcc is found"
        ) from error


def check_memory(what: str, needed: int, index: int) -> None:
    """Check that a GPU has enough free memory.

    Raises
    ------
    BackendError
        It has too little.
    """
    free = free_memory(index)
    if needed > free:
        mib = 1 << 20
        raise BackendError(
            f"{what} needs {-(-needed // mib)} MiB of GPU {index}'s memory, and {free // mib} MiB are free"
        )


class _DriverError(Exception):
    """An error of the driver."""

    def __init__(self, status: Any) -> None:
        super().__init__(getattr(status, "name", str(status)))
        self.status = int(status)


def _ask(function: Any, *arguments: object) -> Any:
    """Call a function of the driver and return its results without the status."""
    status, *values = function(*arguments)
    if int(status) != 0:
        raise _DriverError(status)
    return values[0] if len(values) == 1 else values


def _version(number: int) -> tuple[int, int]:
    """Return a CUDA version such as 12080 as (12, 8)."""
    return number // 1000, number % 1000 // 10


def _describe(driver: Any, index: int) -> Gpu:
    device = _ask(driver.cuDeviceGet, index)
    attribute = driver.CUdevice_attribute
    major = _ask(driver.cuDeviceGetAttribute, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    minor = _ask(driver.cuDeviceGetAttribute, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    name = _ask(driver.cuDeviceGetName, 256, device)
    text = (name if isinstance(name, bytes) else bytes(name)).split(b"\0")[0].decode(errors="replace")
    return Gpu(index, text, (int(major), int(minor)), int(_ask(driver.cuDeviceTotalMem, device)))
