"""Open a bundle's ONNX files on a backend that runs files directly."""

from __future__ import annotations

from samg_fast.backends.protocols import Backend, Network
from samg_fast.backends.registry import files_of
from samg_fast.bundle import Bundle, Role

__all__ = ["open_networks"]


def open_networks(bundle: Bundle, backend: Backend) -> dict[Role, Network]:
    """Open every graph of a bundle at the backend's precision; a network without files for it runs in fp32.

    Parameters
    ----------
    bundle : Bundle
    backend : Backend

    Returns
    -------
    dict of Role to Network
        Without ``"features"`` if the encoder's graph computes them too.

    Raises
    ------
    BackendError
        The backend cannot read or run a file.
    """
    networks: dict[Role, Network] = {}
    for role in bundle.manifest.graphs:
        precision = bundle.manifest.role_precision(role, backend.precision)
        networks[role] = backend.open(bundle.onnx_path(role, files_of(backend.name, precision)), precision)
    return networks
