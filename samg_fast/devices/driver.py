"""Which NVIDIA GPUs and which driver there are, asked of the driver itself."""

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
    """A GPU.

    Parameters
    ----------
    index : int
        As in ``cuda:0``.
    name : str
    compute_capability : tuple of int
        (8, 9) and so on.
    memory : int
        Bytes it has in all.
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
    """What the driver says.

    Parameters
    ----------
    driver : tuple of int
        The CUDA version that the driver supports, (13, 0) and so on; empty without a driver.
    found : tuple of Gpu
    reason : str
        Why there is none; empty where there is.
    """

    driver: tuple[int, ...] = ()
    found: tuple[Gpu, ...] = ()
    reason: str = ""


def find() -> Gpus:
    """Ask the driver which GPUs there are; what is missing is said in `Gpus.reason`, never raised."""
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
    """Return how many bytes of a GPU are free; its context must be the current one, as `Cuda` makes it.

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
    """Say what is wrong with a driver for a library made for a CUDA version; nothing if it is new enough.

    A driver runs what was made for its CUDA version or an earlier one, and any minor version of the same major one.
    """
    if gpus.reason:
        return gpus.reason
    if gpus.driver[0] >= needed[0]:
        return ""
    has, wants = (".".join(map(str, each)) for each in (gpus.driver, needed))
    return f"the NVIDIA driver supports CUDA {has}, but {what} is made for CUDA {wants}: install a newer driver"


def check_kernels(gpus: Gpus) -> str:
    """Say why this package's own kernels cannot run on a GPU here, as every backend there needs; nothing if they can.

    They are held to the CUDA version of the nvcc that built them, as its runtime is linked into them. What they were
    compiled for runs by any driver of that major version, a newer minor one included; only a GPU newer than all of
    these, for which the driver compiles them itself, may want a driver as new as the nvcc.
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
    """Import the module of this package's CUDA kernels.

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
    """Check that a GPU has memory left.

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
    """The driver's error."""

    def __init__(self, status: Any) -> None:
        super().__init__(getattr(status, "name", str(status)))
        self.status = int(status)


def _ask(function: Any, *arguments: object) -> Any:
    """Call a function of the driver, and return what it gives besides its status."""
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
