# SPDX-License-Identifier: Apache-2.0
"""The version is the installed package's."""

import re

from ecapture.version import version


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version())
