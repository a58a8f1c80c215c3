# SPDX-License-Identifier: Apache-2.0
"""Numbers of four bytes (IEEE 754, binary32) as text, as people wrote them: 0.1 without a tail.

A number of four bytes becomes one of eight when it is unpacked, and what is exact there has digits
that nobody sent. Nine digits always tell two of them apart (IEEE 754, 5.12.2), mostly fewer do.
"""

from __future__ import annotations

import math
import struct
from typing import Final

_SINGLE: Final = struct.Struct("<f")
_DIGITS: Final = 9


def shortest(value: float) -> str:
    """Return the shortest text that is ``value`` again in four bytes, as ``repr`` would write it.

    ``value`` must be one that four bytes can hold.
    """
    if not math.isfinite(value):
        return repr(value)
    for digits in range(1, _DIGITS):
        short = float(f"{value:.{digits}g}")
        try:
            same = _SINGLE.unpack(_SINGLE.pack(short))[0] == value
        except OverflowError:
            continue  # rounded up beyond the greatest
        if same:
            return repr(short)
    return repr(float(f"{value:.{_DIGITS}g}"))
