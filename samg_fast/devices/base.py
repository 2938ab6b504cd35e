"""What a device is: where the operations of `samg_fast.ops` run, whose arrays they take, and who makes new ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

__all__ = ["Array", "Device"]

Array = Any
"""An array of a device: anything with `shape` and a NumPy `dtype` that the device's kernels take."""


class Device(Protocol):
    """Where operations run."""

    name: str

    @property
    def where(self) -> str:
        """Where its arrays are, as the end of "must be float32 of shape (3,)"."""
        ...

    def view(self, value: Any, *, written: bool = False) -> Array | None:
        """Return an argument as an array of this device; None if it is none, or of another device.

        One that is written to is never a copy.
        """
        ...

    def contiguous(self, name: str, array: Array, first: int = 0) -> Array:
        """Return an array that is in C order from axis `first` on: itself, or a copy where the device makes such.

        Raises
        ------
        InputError
            It is not in C order, and this device makes no copies.
        """
        ...

    def writable(self, array: Array) -> bool:
        """Say whether an array is not read-only."""
        ...

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Make an array."""
        ...

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        ...

    def constant(self, array: NDArray[Any]) -> Array:
        """Return a read-only NumPy array that is the same at every call as an array of this device."""
        ...

    def run(self, operation: str, *arguments: object) -> None:
        """Run a kernel by its name, on this device's arrays.

        Raises
        ------
        RuntimeError
            The device reports an error: the message names the operation and the error.
        """
        ...
