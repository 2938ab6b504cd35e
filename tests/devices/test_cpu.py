"""The processor as a device."""

from __future__ import annotations

import numpy as np
import pytest

from samg_fast.devices.cpu import CPU, Cpu
from samg_fast.devices.machine import cores
from samg_fast.errors import InputError, InputTypeError


def test_threads() -> None:
    assert CPU.threads == Cpu().threads == cores()
    assert Cpu(3).threads == 3
    with pytest.raises(InputError, match="threads must be at least 1, not 0"):
        Cpu(0)
    with pytest.raises(InputTypeError, match=r"threads must be a whole number, not 2\.5"):
        Cpu(2.5)  # type: ignore[arg-type]


def test_a_view_is_the_array_itself_or_nothing() -> None:
    array = np.zeros((2, 3))

    class Convertible:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return array

    assert CPU.view(array) is array
    assert CPU.view([[0.0]]) is None
    assert CPU.view(Convertible()) is array
    assert CPU.view(Convertible(), written=True) is None, "what is written there would be lost in a copy"


def test_only_what_is_not_in_order_is_copied() -> None:
    maps = np.arange(24).reshape(4, 2, 3)
    for array, first in ((maps, 0), (maps[::2], 1), (maps[:, :1], 2)):
        assert CPU.contiguous("maps", array, first) is array
    for array, first in ((maps[::2], 0), (maps[::-1], 1), (maps[:, :, ::2], 1), (np.asfortranarray(maps), 1)):
        copied = CPU.contiguous("maps", array, first)
        assert copied.flags.c_contiguous
        assert copied.flags.owndata
        np.testing.assert_array_equal(copied, array)
