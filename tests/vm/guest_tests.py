# SPDX-License-Identifier: Apache-2.0
"""Runs tests inside a guest, as one test outside of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

import archive
import guest
import pytest
from kernels import Kernel

TIMEOUT = 1200.0  # seconds: a suite of one minute on the host, twenty times slower


def ran(
    kernel: Kernel,
    tests: tuple[str, ...],
    *without: str,
    environment: Mapping[str, str] | None = None,
) -> guest.Outcome:
    """Run tests, in pytest's words, in a guest; a host that cannot run guests skips."""
    words = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    # The shell stays, so that its file is hooked before a capture says that it is ready: what is
    # seen for the first time is looked into for a second or more in emulation, unseen meanwhile.
    command = ["bash", "-c", f"{shlex.join(words)}; exit $?"]
    # What an old kernel lacks is what these tests are for: there, no skip is a failure.
    settings = {"ECAPTURE_REQUIRE": "0", **(environment or {})}
    try:
        return guest.run(kernel, command, without=without, timeout=TIMEOUT, environment=settings)
    except archive.CannotRun as why:
        if os.environ.get("ECAPTURE_VM_REQUIRED") == "1":
            raise
        pytest.skip(f"cannot run here: {why}")


def assert_passed(kernel: Kernel, outcome: guest.Outcome, capsys: pytest.CaptureFixture) -> None:
    """Fail with what the tests said unless they passed; print how long they took."""
    summary = (outcome.stdout.strip().splitlines() or ["no output"])[-1]
    with capsys.disabled():
        print(
            f"\n{kernel.name}: {summary} "
            f"({outcome.boot_seconds:.0f} s to boot, {outcome.seconds:.0f} s in all)"
        )
    assert outcome.status == 0, f"{outcome.stdout[-20000:]}\n{outcome.stderr[-5000:]}"
