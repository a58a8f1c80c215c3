# SPDX-License-Identifier: Apache-2.0
"""The version is that of the package."""

import re
from pathlib import Path

from ecapture.version import VERSION, version

CHECKOUT = Path(__file__).parents[2]


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version())


def test_the_version_is_the_same_everywhere():
    built = re.search(r"version: '([^']+)'", (CHECKOUT / "meson.build").read_text())
    packaged = re.search(
        r'^version = "([^"]+)"', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert built[1] == packaged[1] == VERSION
