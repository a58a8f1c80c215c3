# SPDX-License-Identifier: Apache-2.0
"""What was found out about secrets survives a run exactly, or not at all."""

from pathlib import Path

import pytest

from ecapture.binary.secrets.remembered import Located, SitesCache
from ecapture.binary.secrets.sites import (
    Chain,
    How,
    Library,
    NotLocated,
    Proof,
    SecretSites,
    Site,
)

STATUS = Path("/proc/self/exe").stat()
SITES = SecretSites(
    Library.OPENSSL,
    Site(0x1000, 0x2000, How.LABEL, Proof.FRAME_TABLE, ("CLIENT_RANDOM",), bytes(range(16))),
    None,
    {"CLIENT_RANDOM": (1, 2)},
    {"client_random": Chain((0xA8, 0xB8), 32, How.EVALUATED)},
    ("a note",),
)


@pytest.mark.parametrize("answer", [SITES, NotLocated("no library")])
def test_an_answer_comes_back_as_it_was(answer, tmp_path):
    with SitesCache(tmp_path / "cache") as cache:
        cache.remember(STATUS, Located.of(answer))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["secrets.json"]
    known, found = SitesCache(tmp_path / "cache").lookup(STATUS)
    assert known
    assert found == Located.of(answer)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"schema":1,"rules":1,"libraries":{"x":{"sites":{"library":"none"}}}}'],
)
def test_a_damaged_file_is_no_answer(content, tmp_path):
    folder = tmp_path / "cache"
    with SitesCache(folder) as cache:
        cache.remember(STATUS, Located.of(SITES))
    (folder / "secrets.json").write_bytes(content)
    assert SitesCache(folder).lookup(STATUS) == (False, None)
