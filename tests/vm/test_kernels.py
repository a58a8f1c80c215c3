# SPDX-License-Identifier: Apache-2.0
"""Boots every kernel that is promised for this architecture; runs tests of the kernel inside.

One boot a kernel. Kernels marked as scheduled join in if ECAPTURE_VM_SCHEDULED=1. A host that
cannot run guests skips, naming what it lacks; ECAPTURE_VM_REQUIRED=1 makes that a failure.
"""

import os

import pytest
from guest_tests import Errand, assert_passed
from kernels import SUPPORTED
from store import HOST_ARCH

FILES = "tests/capture/test_hooked_files.py"
SUITES = (
    *("tests/kernel", "tests/vm/inside"),
    f"{FILES}::test_a_program_that_is_written_anew_is_not_hurt",
    f"{FILES}::test_one_file_below_several_overlays_is_hooked_once",
)

CHOSEN = [
    kernel
    for kernel in SUPPORTED
    if kernel.arch == HOST_ARCH
    and (not kernel.scheduled or os.environ.get("ECAPTURE_VM_SCHEDULED") == "1")
]
WHOLE = [Errand(kernel, SUITES) for kernel in CHOSEN]
UNTYPED = Errand(CHOSEN[0], ("tests/vm/inside",), without=("btf",))


@pytest.mark.parametrize("errand", WHOLE, ids=str)
def test_the_suites_pass_in_a_guest(errand, guests, capsys):
    assert_passed(errand, guests[errand], capsys)


@pytest.mark.parametrize("errand", [UNTYPED], ids=str)
def test_type_information_can_be_taken_away(errand, guests, capsys):
    assert_passed(errand, guests[errand], capsys)
