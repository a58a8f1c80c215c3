# SPDX-License-Identifier: Apache-2.0
"""Numbers of four bytes keep the digits that were sent."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.single import shortest


def single(value: float) -> float:
    number: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (10.0, "10.0"),
        (-0.0, "-0.0"),
        (16777216.0, "16777216.0"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (1e-45, "1e-45"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_no_digits_that_nobody_sent(value: float, text: str) -> None:
    assert shortest(single(value)) == text


@given(st.floats(width=32, allow_nan=False))
def test_it_is_the_same_number_again(value: float) -> None:
    assert single(float(shortest(value))) == value
