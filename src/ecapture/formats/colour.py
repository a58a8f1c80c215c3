# SPDX-License-Identifier: Apache-2.0
"""The few colours of text mode, as SGR sequences (ECMA-48, 8.3.117).

Only the sixteen colours that every terminal lets its owner choose. What is painted must have been
escaped before.
"""

from __future__ import annotations

from typing import Final

BOLD: Final = "1"
DIM: Final = "2"
NAME: Final = "36"
NOTE: Final = "33"

_STATUS: Final = {2: "1;32", 3: "1;36", 4: "1;33", 5: "1;31"}


def paint(text: str, style: str) -> str:
    """Text of one line in a style."""
    return f"\x1b[{style}m{text}\x1b[0m"


def status_colour(status: int) -> str:
    """The style for a status code: green, cyan, yellow or red by its class."""
    return _STATUS.get(status // 100, BOLD)
