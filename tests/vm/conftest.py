# SPDX-License-Identifier: Apache-2.0
"""Makes the modules of this directory importable, which are scripts' modules and no package."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def guests(request: pytest.FixtureRequest):
    """Give what each errand of the chosen tests came to, once it has: a guest runs for each."""
    from guest_tests import run_for  # noqa: PLC0415 - importable from here on

    with run_for(request.session.items) as outcomes:
        yield outcomes
