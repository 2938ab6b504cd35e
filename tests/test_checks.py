"""Numbers from users: what is taken, and the sentence where it is not."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest

from samg_fast.checks import check_number, check_whole, is_whole, whole_numbers
from samg_fast.errors import InputError, InputTypeError


@pytest.mark.parametrize("value", [0, 3, -2, np.int64(5), np.uint8(7)])
def test_whole(value: int) -> None:
    assert is_whole(value)
    found = check_whole("count", value, -2, 7)
    assert (found, type(found)) == (value, int)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float32(1), "1", None, [1], np.ones(1, int)])
def test_not_whole(value: Any) -> None:
    assert not is_whole(value)
    with pytest.raises(InputTypeError, match=r"^count must be a whole number or None, not "):
        check_whole("count", value, 0, otherwise=" or None")


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"minimum": 5}, "count must be at least 5, not 4"),
        ({"minimum": 0, "maximum": 3}, "count must be from 0 to 3, not 4"),
        ({"minimum": 0, "maximum": 3, "otherwise": " or None"}, "count must be from 0 to 3 or None, not 4"),
    ],
)
def test_whole_out_of_range(limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        check_whole("count", 4, **limits)
    assert str(caught.value) == sentence


def test_number() -> None:
    for value in (2, 2.0, np.float32(2), np.int8(2)):
        found = check_number("hz", value, "above 0", lambda hz: hz > 0)
        assert (found, type(found)) == (2.0, float)
    for value in (0, -1.5, inf, nan):
        with pytest.raises(InputError, match=f"^hz must be a number above 0, not {value:g}$"):
            check_number("hz", value, "above 0", lambda hz: hz > 0)
    for other in (True, "2", None):
        with pytest.raises(InputTypeError, match=r"^hz must be a number above 0, not "):
            check_number("hz", other, "above 0", lambda hz: hz > 0)


def test_whole_numbers_in_a_text() -> None:
    assert whole_numbers("84, 160,84") == [84, 160, 84]
    assert whole_numbers("0", minimum=0) == [0]
    for text in ("", "84,", "8.5", "-8", "0", "84;160", "x"):
        assert whole_numbers(text) == []
