"""Open networks of a bundle, their arrays, and what every use of them checks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from samg_fast.backends import Network
from samg_fast.bundle import Bundle, Role
from samg_fast.checks import Floats, Frame
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import BackendError, BundleError

__all__ = ["OpenNetworks"]


class OpenNetworks:
    """The networks of a bundle, ready to run from several threads at once.

    Parameters
    ----------
    bundle : Bundle
        Whose manifest says what the networks take and give.
    networks : mapping of Role to Network
        Open networks, one for each graph.
    threads : int or None
        CPU threads for the kernels between them; None for as many as this process may use.
    max_batch : int, optional
        The most frames that the networks take at once; None for any number.

    Attributes
    ----------
    bundle : Bundle
    device : Cpu
        Where the operations between the networks run.
    max_batch : int or None
        The largest number of frames that may be given to the networks at once; None for any number.
    """

    def __init__(
        self, bundle: Bundle, networks: Mapping[Role, Network], threads: int | None, max_batch: int | None = None
    ) -> None:
        self.bundle = bundle
        self._local = threading.local()
        self.device = Cpu(threads)
        self.max_batch = bundle.manifest.batch or max_batch
        self._open: Mapping[Role, Network] | None = networks

    @property
    def opened(self) -> Mapping[Role, Network]:
        """The networks; without ``"features"`` where the encoder's graph gives them.

        Raises
        ------
        BackendError
            They were closed.
        """
        if self._open is None:
            raise BackendError("this segmenter is closed; load the bundle again")
        return self._open

    @property
    def closed(self) -> bool:
        """Whether the networks were freed."""
        return self._open is None

    def close(self) -> None:
        """Free the networks."""
        self._open = None
        self._local = threading.local()

    def _filled(self, frames: Frame) -> Frame:
        """Return as many frames as the graphs are fixed to: the last frame is repeated."""
        batch = self.bundle.manifest.batch
        if batch is None or len(frames) >= batch:
            return frames
        return np.concatenate((frames, np.repeat(frames[-1:], batch - len(frames), axis=0)))

    def _kept(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Return this thread's array of that name, kept as long as its shape stays: backends bind it only once."""
        arrays: dict[str, Floats] = self._local.__dict__
        if name not in arrays or arrays[name].shape != shape:
            arrays[name] = np.zeros(shape, np.float32)
        return arrays[name]

    def _finite(self, role: Role, array: Floats) -> Floats:
        """Return what a network gave, if all of it is finite; a sum is not where one of its terms is not."""
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(array.sum())
        if not finite:
            raise BackendError(
                f"bundle {self.bundle.name}'s {role} gave NaN or infinity: load it with precision='fp32', or export it "
                "again if that is what it runs in"
            )
        return array

    def _check_shape(self, what: str, array: Any, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise self._error(f"the {what} has shape {array.shape}, expected {shape}")

    def _error(self, what: str) -> BundleError:
        return BundleError(f"bundle {self.bundle.name} is not what its manifest says: {what}")
