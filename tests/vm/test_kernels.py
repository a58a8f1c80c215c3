# SPDX-License-Identifier: Apache-2.0
"""Boots every kernel that is promised for this architecture; runs tests of the kernel inside.

One boot a kernel. Kernels marked as scheduled join in if ECAPTURE_VM_SCHEDULED=1. A host that
cannot run guests skips, naming what it lacks; ECAPTURE_VM_REQUIRED=1 makes that a failure.
"""

import os

import pytest
from guest_tests import assert_passed, ran
from kernels import SUPPORTED, Kernel
from store import HOST_ARCH

SUITES = ("tests/kernel", "tests/vm/inside")

CHOSEN = [
    kernel
    for kernel in SUPPORTED
    if kernel.arch == HOST_ARCH
    and (not kernel.scheduled or os.environ.get("ECAPTURE_VM_SCHEDULED") == "1")
]


@pytest.fixture(params=CHOSEN, ids=[kernel.name for kernel in CHOSEN])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return request.param


def test_the_suites_pass_in_a_guest(kernel, capsys):
    assert_passed(kernel, ran(kernel, SUITES), capsys)


def test_type_information_can_be_taken_away(capsys):
    assert_passed(CHOSEN[0], ran(CHOSEN[0], ("tests/vm/inside",), "btf"), capsys)
