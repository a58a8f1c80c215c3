# SPDX-License-Identifier: Apache-2.0
"""Which version of the package this is."""

from __future__ import annotations


def version() -> str:
    """Return the version of the installed package, "" where it runs from its sources."""
    from importlib import metadata  # noqa: PLC0415 - slow to import, seldom wanted

    try:
        return metadata.version("pyecapture")
    except metadata.PackageNotFoundError:
        return ""
