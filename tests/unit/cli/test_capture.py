# SPDX-License-Identifier: Apache-2.0
"""Which files stand for those that were named."""

from __future__ import annotations

import pytest

from ecapture.cli.capture import nss_files
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
