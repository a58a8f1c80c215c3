# SPDX-License-Identifier: Apache-2.0
"""Colours are what ECMA-48 says, and end where they should."""

from ecapture.formats.colour import BOLD, paint, status_colour


def test_paint_resets() -> None:
    assert paint("text", BOLD) == "\x1b[1mtext\x1b[0m"


def test_classes_of_status_differ() -> None:
    styles = [status_colour(status) for status in (200, 301, 404, 503)]
    assert len(set(styles)) == 4
    assert status_colour(204) == status_colour(200)
    assert status_colour(100) == status_colour(0) == BOLD
