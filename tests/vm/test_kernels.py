# SPDX-License-Identifier: Apache-2.0
"""Boots every kernel that is promised and runs the kernel and guest-only tests inside it.

One boot a kernel. Kernels marked as scheduled join in if ECAPTURE_VM_SCHEDULED=1. A host that
cannot run guests skips, naming what it lacks; ECAPTURE_VM_REQUIRED=1 makes that a failure.
"""

import os

import archive
import guest
import pytest
from kernels import SUPPORTED, Kernel

SUITES = ("tests/kernel", "tests/vm/inside")
TIMEOUT = 1200.0  # seconds: a suite of one minute on the host, twenty times slower

CHOSEN = [
    kernel
    for kernel in SUPPORTED
    if not kernel.scheduled or os.environ.get("ECAPTURE_VM_SCHEDULED") == "1"
]


@pytest.fixture(params=CHOSEN, ids=[kernel.name for kernel in CHOSEN])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return request.param


def ran(kernel: Kernel, suites: tuple[str, ...], *without: str) -> guest.Outcome:
    """Run test suites in a guest."""
    present = [suite for suite in suites if (guest.CHECKOUT / suite).is_dir()]
    command = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *present]
    # What an old kernel lacks is what these tests are for: there, no skip is a failure.
    quiet = {"ECAPTURE_REQUIRE": "0"}
    try:
        return guest.run(kernel, command, without=without, timeout=TIMEOUT, environment=quiet)
    except archive.CannotRun as why:
        if os.environ.get("ECAPTURE_VM_REQUIRED") == "1":
            raise
        pytest.skip(f"cannot run here: {why}")


def test_the_suites_pass_in_a_guest(kernel, capsys):
    outcome = ran(kernel, SUITES)
    summary = (outcome.stdout.strip().splitlines() or ["no output"])[-1]
    with capsys.disabled():
        print(
            f"\n{kernel.name}: {summary} "
            f"({outcome.boot_seconds:.0f} s to boot, {outcome.seconds:.0f} s in all)"
        )
    assert outcome.status == 0, f"{outcome.stdout[-20000:]}\n{outcome.stderr[-5000:]}"


def test_type_information_can_be_taken_away():
    outcome = ran(CHOSEN[0], ("tests/vm/inside",), "btf")
    assert outcome.status == 0, f"{outcome.stdout[-20000:]}\n{outcome.stderr[-5000:]}"
