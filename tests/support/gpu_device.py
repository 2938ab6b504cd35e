"""A GPU as a place for the operations' tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda


class OnGpu:
    """A GPU, on a stream of its own; arrays come and go through the host."""

    def __init__(self) -> None:
        self.device = Cuda()

    def put(self, array: NDArray[Any]) -> Array:
        return self.device.upload(np.ascontiguousarray(array))

    def get(self, array: Array) -> NDArray[Any]:
        return self.device.download(array)
