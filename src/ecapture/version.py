# SPDX-License-Identifier: Apache-2.0
"""Which version of the package this is."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""As in ``meson.build`` and ``pyproject.toml``; asking the installed package takes 10 ms."""


def version() -> str:
    """Return the version of the package."""
    return VERSION
