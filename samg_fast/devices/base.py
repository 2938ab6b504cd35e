"""The protocol of a device: it runs the kernels of `samg_fast.ops`, and has arrays of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

__all__ = ["Array", "Device"]

Array = Any
"""An array of a device: anything with `shape` and a NumPy `dtype` that its kernels take."""


class Device(Protocol):
    """A place where operations run."""

    name: str

    @property
    def where(self) -> str:
        """Where its arrays are: an ending for an error message such as "must be float32 of shape (3,)"."""
        ...

    def view(self, value: Any, *, written: bool = False) -> Array | None:
        """Return an argument as an array of this device; None if it is no array, or an array of another device.

        If it is to be `written`, it is never a copy.
        """
        ...

    def contiguous(self, name: str, array: Array, first: int = 0) -> Array:
        """Return an array that is in C order from axis `first` on: the array itself or, on some devices, a copy.

        Raises
        ------
        InputError
            It is not in C order, and this device makes no copy.
        """
        ...

    def writable(self, array: Array) -> bool:
        """Say whether an array may be written to."""
        ...

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Allocate an array."""
        ...

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        ...

    def constant(self, array: NDArray[Any]) -> Array:
        """Return a read-only NumPy array as an array of this device.

        The device may keep its copy: give it only arrays that are cached and used again.
        """
        ...

    def run(self, operation: str, *arguments: object) -> None:
        """Run a kernel by its name, on arrays of this device.

        Raises
        ------
        RuntimeError
            The device reports an error; the message names the operation.
        """
        ...
