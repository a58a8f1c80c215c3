# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs are told about a file, and which files are refused."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ecapture._wire import CHAIN, SECRET_ROW, SECRET_ROW_FIELDS, Label, Shape
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.secrets.remembered import Located, SitesCache
from ecapture.binary.secrets.sites import Chain, How, Library, Proof, SecretSites, Site
from ecapture.kernel import keys as module
from ecapture.kernel.keys import KEPT, LOG, MASTER, Keys, key_hooks, secret_row

LIBSSL = "/usr/lib/x86_64-linux-gnu/libssl.so.3"
needs_libssl = pytest.mark.skipif(not Path(LIBSSL).exists(), reason=f"needs {LIBSSL}")


def chain(*offsets):
    return Chain(offsets, 32, How.EVALUATED)


def sites(library=Library.OPENSSL, labels=None, **chains):
    return SecretSites(library, None, None, labels or {}, chains, ("why not",))


def fields(row):
    return dict(zip(SECRET_ROW_FIELDS, SECRET_ROW.unpack(row), strict=True))


class TestRow:
    def test_chains_stand_where_the_programs_look(self):
        row = fields(
            secret_row(
                sites(
                    client_random=chain(0xA8, 0xB8),
                    handshake_secret=chain(0x17C),
                    exporter=chain(0x3BC),
                    master_key=chain(1, 2, 3, 4),
                )
            )
        )
        assert CHAIN.unpack(row["client_random"]) == (0xA8, 0xB8, 0, 0, 2)
        assert CHAIN.unpack(row["schedule"]) == (0x17C, 0, 0, 0, 1)
        assert CHAIN.unpack(row["exporter"]) == (0x3BC, 0, 0, 0, 1)
        assert CHAIN.unpack(row["master_key"]) == (1, 2, 3, 4, 4)
        assert CHAIN.unpack(row["version"]) == (0, 0, 0, 0, 0)
        assert row["finished_state"] == 1

    def test_a_chain_that_is_too_long_is_not_known(self):
        row = fields(secret_row(sites(client_random=chain(1, 2, 3, 4, 5)), old=True))
        assert row["client_random"] == bytes(CHAIN.size)
        assert row["finished_state"] == 3

    def test_only_openssl_has_a_schedule(self):
        boringssl = sites(Library.BORINGSSL, handshake_secret=chain(1), exporter=chain(2))
        assert fields(secret_row(boringssl))["schedule"] == bytes(CHAIN.size)

    def test_labels_are_known_by_their_place_in_a_page(self):
        labels = {
            "CLIENT_RANDOM": (0x12345, 0x99345),
            "EXPORTER_SECRET": (0x12400,),
            "EARLY_EXPORTER_SECRET": (0x77400,),  # as the one above: either could be meant
            "NOT_A_LABEL": (0x12500,),
        }
        row = fields(secret_row(sites(labels=labels)))
        assert row["label_place"] == bytes.fromhex("4503").ljust(32, b"\0")
        assert row["label_number"] == bytes([Label.CLIENT_RANDOM]).ljust(16, b"\0")

    def test_more_labels_than_there_is_room_for(self):
        labels = {"CLIENT_RANDOM": tuple(range(0, 4096, 100))}
        assert fields(secret_row(sites(labels=labels)))["label_number"] == b"\1" * 16


class Told(list):
    """Programs, as far as rows go."""

    hooks = (LOG, MASTER, KEPT)

    def set_row(self, table, row, content):
        assert (table, row) == ("secret_rows", len(self))
        self.append(content)


@pytest.fixture
def programs():
    return Told()


@pytest.fixture
def libssl():
    with ElfFile(LIBSSL) as elf:
        return identify(elf)


@needs_libssl
class TestPlaces:
    def test_a_libssl(self, programs, libssl):
        keys = Keys(programs, SitesCache(None))
        found = keys.places(LIBSSL, "libssl", libssl, older=False)
        assert [(place.row, place.file_row) for place in found] == [(0, 0)]
        found = keys.places(LIBSSL, "libssl", libssl, older=True)
        assert {place.row for place in found} == {0, 2}
        assert {place.offset for place in found if place.row == 2} == {
            libssl.functions[name]
            for name in ("SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex")
        }
        assert len(programs) == 1, "one row, however often it is asked for"

    def test_copies_have_one_row_and_others_their_own(self, programs, libssl, tmp_path):
        """Every container may have a copy, and there are few rows on kernels without cookies."""
        copy, other = tmp_path / "copy", tmp_path / "other"
        copy.write_bytes(Path(LIBSSL).read_bytes())
        other.write_bytes(Path(LIBSSL).read_bytes())
        with ElfFile(LIBSSL) as elf:
            answer = module.locate(elf)
        bare = SecretSites(answer.library, answer.log, None, {}, {}, ())
        cache = SitesCache(None)
        cache._used[module.identity(other.stat())] = Located(bare)
        keys = Keys(programs, cache)
        paths = (LIBSSL, str(copy), str(other), LIBSSL)
        rows = [keys.places(path, "x", libssl, older=False)[0].file_row for path in paths]
        assert rows == [0, 0, 1, 0]

    def test_what_is_remembered_must_be_what_is_there(self, programs, libssl, caplog):
        cache = SitesCache(None)
        elsewhere = Site(0x5000, 0x5000, How.LABEL, Proof.FRAME_TABLE, (), b"not the bytes...")
        lie = SecretSites(Library.OPENSSL, elsewhere, None, {}, {}, ())
        cache.remember(Path(LIBSSL).stat(), Located(lie))
        assert Keys(programs, cache).places(LIBSSL, "libssl", libssl, older=False) == []
        assert "it is not the file it was" in caplog.text

    def test_more_files_than_rows(self, programs, libssl, caplog, monkeypatch):
        monkeypatch.setattr(module, "SECRET_ROWS", 0)
        monkeypatch.setattr(module, "SECRET_SLOTS", 0)
        assert Keys(programs, SitesCache(None)).places(LIBSSL, "x", libssl, older=False) == []
        assert "too many different files" in caplog.text

    def test_no_client_random_is_said_once(self, programs, libssl, caplog):
        with ElfFile(LIBSSL) as elf:
            answer = module.locate(elf)
        bare = SecretSites(answer.library, answer.log, None, {}, {}, ("no walk to it",))
        cache = SitesCache(None)
        cache.remember(Path(LIBSSL).stat(), Located(bare))
        keys = Keys(programs, cache)
        for _ in range(2):
            assert len(keys.places(LIBSSL, "libssl", libssl, older=False)) == 1
        assert caplog.text.count("cannot be joined with connections: no walk to it") == 1


def test_files_without_keys(programs, caplog, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(Path("/proc/self/exe").read_bytes()[: 1 << 20])
    cache = SitesCache(None)
    cache._used[module.identity(file.stat())] = Located(reason="nothing there")
    keys = Keys(programs, cache)
    with caplog.at_level(logging.WARNING):
        library = SimpleNamespace(kind="any", functions={}, version="")
        assert keys.places(str(file), "file", library, older=True) == []
    assert "nothing there" in caplog.text
    assert programs == []


def test_without_cookies_only_the_log_function_is_hooked(without):
    without("attach_cookie")
    assert [hook.shape for hook in key_hooks()] == [Shape.SECRET]


def test_files_without_objects_need_no_programs_for_objects():
    assert [hook.shape for hook in key_hooks(("go",))] == [Shape.TOLD]
    assert Shape.TOLD in {hook.shape for hook in key_hooks(("openssl", "go"))}
    assert Shape.TOLD not in {hook.shape for hook in key_hooks(("openssl", "gnutls"))}


def test_large_files_are_quick_only_if_they_are_known(tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    os.utime(large, (0, 0))
    cache = SitesCache(None)
    keys = Keys(Told(), cache)
    openssl = SimpleNamespace(kind="openssl")
    assert not keys.quick(large.stat(), openssl)
    cache._used[module.identity(large.stat())] = Located(reason="x")
    assert keys.quick(large.stat(), openssl)
