# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs send of secrets, from a program that hands over known ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from speaking import Speaker, distinct, settings

from ecapture._wire import SCHEDULE, SCHEDULE_FIELDS
from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.sites import Chain, How, Library, SecretSites
from ecapture.events import Losses
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.decode import Decoder
from ecapture.kernel.feature import feature
from ecapture.kernel.keys import KEPT, LOG, MASTER, key_hooks, secret_row

pytestmark = pytest.mark.needs("root", "bpf", "ringbuf", "uprobe")
cookies = pytest.mark.needs("attach_cookie")

VARIANTS = distinct((), ("uprobe_multi",), ("attach_cookie",), ("uprobe_multi", "attach_cookie"))
FUNCTIONS = {LOG.shape: "tell", MASTER.shape: "make_master", KEPT.shape: "any_call"}
ROW = 5


def chain(*offsets):
    return Chain(offsets, 0, How.EVALUATED)


# struct object of teller.c
SITES = SecretSites(
    Library.OPENSSL,
    None,
    None,
    {"CLIENT_TRAFFIC_SECRET_0": (0x7345,)},
    {
        "object_type": chain(0),
        "version": chain(4),
        "handshake_state": chain(8),
        "in_init": chain(12),
        "client_random": chain(16, 8),
        "handshake_secret": chain(24),
        "exporter": chain(600),
        "master_key": chain(664),
    },
)


@pytest.fixture(scope="session")
def teller_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("teller") / "teller"
    source = Path(__file__).parent / "teller.c"
    subprocess.run(["cc", "-O1", "-rdynamic", "-o", path, source], check=True, capture_output=True)
    return path


class Teller(Speaker):
    """The running program."""

    def __init__(self, path, folder):
        page = folder / "page"
        page.write_bytes(b"CLIENT_TRAFFIC_SECRET_0\0".rjust(0x345 + 24, b"\1").ljust(4096, b"\1"))
        script = folder / "teller"
        script.write_text(f"#!/bin/sh\nexec {path} {page}\n")
        script.chmod(0o755)
        super().__init__(script)


class Told:
    """Programs attached to the teller; ``tell`` makes calls and returns what came of them."""

    def __init__(self, path, teller, config):
        self.teller = teller
        self.programs = Programs(config, key_hooks())
        try:
            self.programs.set_row("secret_rows", ROW, secret_row(SITES))
            with ElfFile(str(path)) as elf:
                places = [
                    Place(
                        row,
                        elf.file_offset(elf.symbol(FUNCTIONS[hook.shape]).address),
                        file_row=ROW,
                    )
                    for row, hook in enumerate(self.programs.hooks)
                ]
            self.attached = self.programs.attach(str(path), places, teller.pid)
        except BaseException:
            self.programs.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.attached.close()
        self.programs.close()

    def drained(self):
        out = b""
        while batch := self.programs.ring.drain(1 << 20):
            out += batch
        return out

    def tell(self, *calls):
        for call in calls:
            self.teller.say(*call.split())
        decoder = Decoder(0)
        events = decoder.decode(self.drained())
        assert decoder.malformed == 0
        return events


@pytest.fixture
def teller(teller_path, tmp_path):
    with Teller(teller_path, tmp_path) as running:
        yield running


@pytest.fixture
def told(teller_path, teller):
    with Told(teller_path, teller, settings()) as programs:
        teller.say("random", 1)
        yield programs


def counted(first, length):
    return bytes((first + n) % 256 for n in range(length))


@pytest.mark.parametrize("missing", VARIANTS, ids=lambda names: "+".join(names) or "all")
def test_a_secret_is_sent_whole(teller_path, teller, missing, without):
    without(*missing)
    with Told(teller_path, teller, settings()) as told:
        [event] = told.tell("random 9", "tell 48")
        assert event.label == "EXPORTER_SECRET"
        assert event.client_random == counted(9, 32)
        assert event.secret == counted(100, 48)
        assert (event.pid, event.tid, event.comm) == (teller.pid, teller.pid, "teller")
        assert event.missing == ""
        assert told.programs.losses() == Losses()


def test_each_length(told):
    for length in (1, 32, 47, 64):
        [event] = told.tell(f"tell {length}")
        assert event.secret == counted(100, length)


@pytest.mark.parametrize("length", [0, 65, 2_000_000_000, -1])
def test_a_length_that_no_secret_has(told, length):
    [event] = told.tell(f"tell {length}")
    assert (event.secret, event.missing) == (b"", "unreadable")
    assert told.programs.losses().fault_records == 1


def test_a_label_that_is_not_in_memory_is_known_by_its_place(told):
    [event] = told.tell("tell-absent 32")
    assert event.label == "CLIENT_TRAFFIC_SECRET_0"


def test_a_label_that_is_nowhere(told):
    [event] = told.tell("tell-nowhere 32")
    assert (event.label, event.missing) == ("", "unlabelled")
    assert event.secret == counted(100, 32)


def test_a_secret_that_cannot_be_read(told):
    [event] = told.tell("tell-unreadable 32")
    assert (event.secret, event.missing) == (b"", "unreadable")
    losses = told.programs.losses()
    assert (losses.fault_records, losses.fault_bytes) == (1, 32)


def test_a_client_random_that_cannot_be_read(told):
    [event] = told.tell("random 0", "tell 32")
    assert (event.client_random, event.secret) == (b"", counted(100, 32))


def test_others_are_not_watched(teller_path, teller):
    with Told(teller_path, teller, settings(pids=(1,))) as told:
        assert told.tell("tell 32", "make 48", "version 771", "state 1", "master 1", "call 0") == []


@cookies
class TestMaster:
    def test_what_was_made_is_sent(self, told):
        [event] = told.tell("make 48")
        assert (event.label, event.secret) == ("CLIENT_RANDOM", b"\x77" * 48)
        assert event.client_random == counted(1, 32)

    def test_a_call_that_failed_made_nothing(self, told):
        assert told.tell("make 0", "make -1") == []


@cookies
class TestKept:
    FINISHED = ("version 771", "state 1", "in_init 0", "master 7")

    def test_once_for_each_client_random(self, told):
        [event] = told.tell(*self.FINISHED, "call 0", "call 0")
        assert (event.label, event.secret) == ("CLIENT_RANDOM", counted(7, 48))
        assert event.client_random == counted(1, 32)
        [event] = told.tell("random 2", "call 0", "call 0")
        assert event.client_random == counted(2, 32)

    @pytest.mark.parametrize("state", ["state 3", "in_init 1", "type 1", "random 0", "version 0"])
    def test_not_before_the_handshake_is_over(self, told, state):
        assert told.tell(*self.FINISHED, state, "call 0") == []
        [event] = told.tell("type 0", "random 1", *self.FINISHED, "call 0")
        assert event.secret == counted(7, 48)

    def test_not_before_there_is_a_master_key(self, told):
        finished = ("version 771", "state 1")
        assert told.tell(*finished, "call 0") == []
        [event] = told.tell("master 3", "call 0")
        assert event.secret == counted(3, 48)

    @pytest.mark.parametrize("version", [0x301, 0x302, 0x303, 0xFEFD])
    def test_versions_with_a_master_key(self, told, version):
        [event] = told.tell(*self.FINISHED, f"version {version}", "call 0")
        assert event.label == "CLIENT_RANDOM"

    def test_of_tls_1_3_the_key_schedule_is_sent(self, told):
        assert told.tell(*self.FINISHED, "version 772", "schedule 50") == []
        told.teller.say("call")
        told.teller.say("call")
        fields = dict(zip(SCHEDULE_FIELDS, SCHEDULE.unpack(told.drained()), strict=True))
        assert fields["secrets"] == counted(50, 576)
        assert fields["exporter"] == counted(51, 64)
        assert fields["client_random"] == counted(1, 32)


@pytest.mark.skipif(not feature("attach_cookie"), reason="as all rows are then")
def test_without_cookies_there_are_rows_for_some_files_only(teller_path, teller, without):
    without("attach_cookie")
    programs = Programs(settings(), key_hooks())
    try:
        attached = programs.attach(str(teller_path), [Place(0, 0, file_row=8)], teller.pid)
        assert attached.links == ()
    finally:
        programs.close()
