# SPDX-License-Identifier: Apache-2.0
"""Which files stand for those that were named, and whose standard output is."""

from __future__ import annotations

import pytest

from ecapture.cli.capture import _writes_to_stdout, nss_files, tls
from ecapture.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    for name in ("libnspr4.so", "libssl3.so", "nss/libsoftokn3.so"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize("name", ["libnspr4.so", "libnss3.so", "libssl3.so"])
def test_nspr_stands_for_the_tls_layer_beside_it(folder, name):
    layer = str(folder / "libssl3.so")
    assert nss_files([str(folder / name)], keys=False) == (layer,)


def test_keys_need_the_softoken_beside_it(folder):
    named = [str(folder / "libnspr4.so"), str(folder / "libssl3.so")]
    layer, softoken = str(folder / "libssl3.so"), str(folder / "nss" / "libsoftokn3.so")
    assert nss_files(named, keys=True) == (layer, softoken)


def test_nspr_alone_is_refused(folder):
    (folder / "libssl3.so").unlink()
    with pytest.raises(UsageError, match=r"no libssl3\.so beside"):
        nss_files([str(folder / "libnspr4.so")], keys=False)


def test_any_other_file_is_taken_as_it_is():
    assert nss_files(["/opt/own/tls.so"], keys=True) == ("/opt/own/tls.so",)
    assert nss_files([], keys=True) == ()


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ((), True),
        (("-w", "x"), False),
        (("--eventaddr", "x"), False),
        (("--eventaddr", "-"), True),
        (("-w", "x", "--eventaddr", "-"), True),
        (("-m", "pcap", "--eventaddr", "-"), True),
        (("-m", "keylog"), False),
        (("-w", "x", "-k", "-"), True),
    ],
)
def test_a_command_has_no_standard_output_that_is_ours(words, ours):
    assert _writes_to_stdout(tls.make_context("tls", list(words)).params) is ours
