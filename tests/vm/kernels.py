# SPDX-License-Identifier: Apache-2.0
"""The kernels that the project promises to work on, and how to pick each from an archive.

``SUPPORTED`` is the one list: the guest tests run it, and the manual's support matrix is checked
against it. A row names a *series* by a pattern, because single builds leave an archive with every
point release; the newest build that matches is taken. Suites are tried in the order given.

Kernels that are not ``scheduled`` boot in every run of the guest tests, so they are the small
"cloud" flavour, which unpacks and boots fastest. The others are for a slower, regular run.

Debian packages, as seen in its archive in 2026: up to 6.18 the package ``linux-image-RELEASE``
holds everything; from 6.19 on it is empty, and ``linux-base-``, ``linux-binary-`` and
``linux-modules-RELEASE`` hold the parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

IMAGE = "linux-image-"


@dataclass(frozen=True)
class Kernel:
    """One row: a series of Debian kernels.

    ``build`` is a regular expression for the whole release (what ``uname -r`` says); ``extras``
    are modules to load besides those that every guest needs.
    """

    name: str
    arch: str
    suites: tuple[str, ...]
    build: str
    extras: tuple[str, ...] = ()
    scheduled: bool = False


SUPPORTED: tuple[Kernel, ...] = (
    Kernel(
        "5.10-cloud", "amd64", ("bullseye", "bullseye-security"), r"5\.10\.[-.0-9]+-cloud-amd64"
    ),
    Kernel("6.1-cloud", "amd64", ("bookworm-security", "bookworm"), r"6\.1\.[-.0-9]+-cloud-amd64"),
    Kernel("6.12-cloud", "amd64", ("trixie", "trixie-security"), r"6\.12\.\d+\+deb13-cloud-amd64"),
    Kernel("5.10", "amd64", ("bullseye",), r"5\.10\.[-.0-9]+-amd64", scheduled=True),
    Kernel("5.10-rt", "amd64", ("bullseye",), r"5\.10\.[-.0-9]+-rt-amd64", scheduled=True),
    Kernel("6.1", "amd64", ("bookworm",), r"6\.1\.[-.0-9]+-amd64", scheduled=True),
    Kernel("6.12", "amd64", ("trixie",), r"6\.12\.\d+\+deb13-amd64", scheduled=True),
    Kernel("6.12-rt", "amd64", ("trixie",), r"6\.12\.\d+\+deb13-rt-amd64", scheduled=True),
    Kernel(
        "7.x-cloud",
        "amd64",
        ("trixie-backports",),
        r"7\.\d+\.\d+\+deb13-cloud-amd64",
        scheduled=True,
    ),
    Kernel(
        "6.12-cloud-arm64",
        "arm64",
        ("trixie", "trixie-security"),
        r"6\.12\.\d+\+deb13-cloud-arm64",
    ),
    Kernel(
        "6.1-cloud-arm64",
        "arm64",
        ("bookworm-security", "bookworm"),
        r"6\.1\.[-.0-9]+-cloud-arm64",
        scheduled=True,
    ),
    Kernel(
        "5.10-cloud-arm64",
        "arm64",
        ("bullseye",),
        r"5\.10\.[-.0-9]+-cloud-arm64",
        scheduled=True,
    ),
    Kernel(
        "6.12-16k-arm64",
        "arm64",
        ("trixie",),
        r"6\.12\.\d+\+deb13-arm64-16k",
        scheduled=True,
    ),
)


def named(name: str) -> Kernel:
    """Return the row called ``name``.

    Raises:
        LookupError: there is none; the text lists the names there are.

    """
    for kernel in SUPPORTED:
        if kernel.name == name:
            return kernel
    names = ", ".join(kernel.name for kernel in SUPPORTED)
    raise LookupError(f"no kernel is called {name!r}; there are {names}")


def newest_release(build: str, packages: Iterable[str]) -> str | None:
    """Return the newest release that matches ``build`` among package names, or None.

    Numbers are compared as numbers: 6.1.0-9 is older than 6.1.0-10.
    """
    wanted = re.compile(build)
    releases = (name.removeprefix(IMAGE) for name in packages if name.startswith(IMAGE))
    matching = [release for release in releases if wanted.fullmatch(release)]
    return max(matching, key=_by_number, default=None)


def _by_number(release: str) -> list[tuple[int, int, str]]:
    """Sort key: digits by value, all else as text, digits after text."""
    return [
        (1, int(part), "") if part.isdigit() else (0, 0, part)
        for part in re.findall(r"\d+|\D+", release)
    ]
