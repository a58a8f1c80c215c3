# SPDX-License-Identifier: Apache-2.0
"""The product on arm64, emulated: its kernel, its programs, the project cross-compiled for it.

What differs there is what these tests are for: the kernel's verifier and the registers that it
hands over, the instructions that are replaced by breakpoints, and all code that is read to find
what to probe. They are those of ``tests/kernel`` and ``tests/capture`` that a real machine would
run, chosen because emulated programs take twenty times as long; kernels that are marked as
scheduled run all that ``tests/kernel`` has as well. A host that is arm64 itself runs these kernels
in ``test_kernels``.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from guest_tests import Errand, assert_passed
from kernels import SUPPORTED
from store import CHECKOUT, HOST_ARCH

_SPEC = importlib.util.spec_from_file_location(
    "vm_toolchains", Path(__file__).parent.parent / "capture" / "toolchains.py"
)
toolchains = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(toolchains)

SCHEDULED = os.environ.get("ECAPTURE_VM_SCHEDULED") == "1"
KERNELS = [
    kernel
    for kernel in SUPPORTED
    if kernel.arch == "arm64" != HOST_ARCH and (SCHEDULED or not kernel.scheduled)
]
ESSENTIAL = (
    "tests/kernel/test_programs.py::test_the_verifier_accepts_each_program",
    "tests/kernel/test_programs.py::test_every_variant_captures_the_same",
    "tests/vm/inside",
)
PROGRAMS = (
    "tests/capture/test_programs.py::test_openssl_s_client_and_s_server",
    "tests/capture/test_keylog.py::test_wireshark_decrypts_with_our_keys[1.3]",
    "tests/capture/test_gnutls.py::test_its_own_programs[1.3]",
    "tests/capture/test_bash.py::test_a_hundred_lines",
    "tests/capture/test_gotls.py::test_each_release_is_shown_exactly[1.15]",
    "tests/capture/test_gotls.py::test_each_release_is_shown_exactly[1.27.3]",
    "tests/capture/test_nss.py::test_tstclnt[1.3]",
    "tests/capture/test_packets_decrypted.py::TestFiles::test_several_outputs_of_one_run",
)


def go_programs() -> dict[str, str]:
    """Return what tells the guest's tests of programs that Go's compilers make here."""
    folder = CHECKOUT / "build" / "go-arm64"
    folder.mkdir(parents=True, exist_ok=True)
    for release in toolchains.OLDEST, toolchains.NEWEST:
        target = folder / f"gopeer-{release}-default"
        files, options = toolchains.MODES["default"]
        words = [*options, *toolchains.PEER, *files]
        toolchains.build(release, target, *words, GOARCH="arm64", CGO_ENABLED="0")
    return {"ECAPTURE_GO_BUILT": str(folder)}


ERRANDS = [
    Errand(
        kernel,
        (*(("tests/kernel", "tests/vm/inside") if kernel.scheduled else ESSENTIAL), *PROGRAMS),
        prepare=go_programs,
    )
    for kernel in KERNELS
]


@pytest.mark.parametrize("errand", ERRANDS, ids=str)
def test_it_loads_and_captures(errand, guests, capsys):
    assert_passed(errand, guests[errand], capsys)
