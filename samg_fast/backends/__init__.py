"""Backends: what runs a bundle's ONNX files, on a processor or on a GPU.

A backend is chosen by name, or by ``"auto"``, which says in the log (logger ``samg_fast``, level INFO) what it chose
and why. A named backend that cannot run is an error: none is swapped for another in silence.
"""

from samg_fast.backends.opening import open_networks
from samg_fast.backends.protocols import (
    Backend,
    BackendStatus,
    CompilingBackend,
    DeviceNetwork,
    GpuRuntime,
    Network,
    Options,
    Runtime,
)
from samg_fast.backends.registry import BACKENDS, check_name, compiling
from samg_fast.backends.selection import check_batches, choose, first_fitting, parse_device, preferred, probe

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendStatus",
    "CompilingBackend",
    "DeviceNetwork",
    "GpuRuntime",
    "Network",
    "Options",
    "Runtime",
    "check_batches",
    "check_name",
    "choose",
    "compiling",
    "first_fitting",
    "open_networks",
    "parse_device",
    "preferred",
    "probe",
]
