"""Backends: the libraries that run a bundle's ONNX files on the CPU or a GPU.

A backend is selected by name or by ``"auto"``, which logs its choice and why (logger ``samg_fast``, level INFO). A
named backend that cannot run is an error; it is never replaced silently by another.
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
