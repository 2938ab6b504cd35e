"""Backends: what runs a bundle's ONNX files, on a processor or on a GPU.

A backend is chosen by name, or by ``"auto"``, which says in the log (logger ``samg_fast``, level INFO) what it chose
and why. A named backend that cannot run is an error: none is swapped for another in silence.
"""

from samg_fast.backends.protocols import BACKENDS, Backend, BackendStatus, DeviceNetwork, GpuBackend, Network, Options
from samg_fast.backends.selection import check_batches, choose, first_fitting, parse_device, preferred, probe

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendStatus",
    "DeviceNetwork",
    "GpuBackend",
    "Network",
    "Options",
    "check_batches",
    "choose",
    "first_fitting",
    "parse_device",
    "preferred",
    "probe",
]
