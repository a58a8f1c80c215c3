# SPDX-License-Identifier: Apache-2.0
"""What the kernel program sends of secrets that are told together with their client random."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
from speaking import Speaker, distinct, settings

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.operations import AAPCS64, AMD64
from ecapture.binary.secrets.sites import Proof
from ecapture.binary.secrets.telling import Operand, Telling, TellingSite, Told
from ecapture.events import Losses
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.decode import Decoder
from ecapture.kernel.feature import feature
from ecapture.kernel.told import TOLD, told_row

pytestmark = pytest.mark.needs("root", "bpf", "ringbuf", "uprobe")
VARIANTS = distinct((), ("uprobe_multi",), ("attach_cookie",), ("uprobe_multi", "attach_cookie"))
RANDOM = bytes([7]) * 32

ARGUMENTS = (AMD64 if platform.machine() == "x86_64" else AAPCS64).arguments
# tell(label, length, random, random_length, outer) of informer.c
WAYS = Told(
    *(Operand(register) for register in ARGUMENTS[:4]),
    Operand(ARGUMENTS[4], (8, 16)),
    Operand(ARGUMENTS[4], (8, 24)),
)
LABELS = {"CLIENT_TRAFFIC_SECRET_0": (0x7345,)}


@pytest.fixture(scope="session")
def informer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("informer") / "informer"
    source = Path(__file__).parent / "informer.c"
    subprocess.run(["cc", "-O1", "-rdynamic", "-o", path, source], check=True, capture_output=True)
    return path


class Informed:
    """A program that tells, and programs that listen; ``tell`` returns what came of calls."""

    def __init__(self, path, folder, config=None, told=WAYS):
        page = folder / "page"
        page.write_bytes(b"CLIENT_TRAFFIC_SECRET_0".rjust(0x345 + 23, b"\1").ljust(4096, b"\1"))
        script = folder / "informer"
        script.write_text(f"#!/bin/sh\nexec {path} {page}\n")
        script.chmod(0o755)
        self.row = 0 if not feature("attach_cookie") else 5
        self.speaker = Speaker(script)
        self.programs = Programs(config or settings(), (TOLD,))
        with ElfFile(str(path)) as elf:
            offset, machine = elf.file_offset(elf.symbol("tell").address), elf.machine
        site = TellingSite(0, offset, b"", told, Proof.FRAME_TABLE)
        self.programs.set_row("told_rows", self.row, told_row(site, Telling((), LABELS), machine))
        places = [Place(0, offset, file_row=self.row)]
        self.attached = self.programs.attach(str(path), places, self.speaker.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.attached.close()
        self.programs.close()
        self.speaker.__exit__()

    def tell(self, *calls):
        for call in calls:
            self.speaker.say(*call.split())
        batch = b""
        while more := self.programs.ring.drain(1 << 20):
            batch += more
        decoder = Decoder(0)
        events = decoder.decode(batch)
        assert decoder.malformed == 0
        return [(e.label, e.client_random, e.secret, e.missing) for e in events]


def counted(length):
    return bytes(100 + n for n in range(length))


@pytest.mark.parametrize("mask", VARIANTS, ids=lambda mask: "-".join(mask) or "all")
def test_every_variant_tells_the_same(without, informer_path, tmp_path, mask):
    without(*mask)
    with Informed(informer_path, tmp_path) as informed:
        for length in (1, 32, 48, 64):
            assert informed.tell(f"tell {length}") == [
                ("EXPORTER_SECRET", RANDOM, counted(length), "")
            ]
        assert informed.programs.losses() == Losses()


def test_a_label_that_is_not_in_memory_is_known_by_its_place(informer_path, tmp_path):
    with Informed(informer_path, tmp_path) as informed:
        assert informed.tell("tell-absent 32") == [
            ("CLIENT_TRAFFIC_SECRET_0", RANDOM, counted(32), "")
        ]
        for call in ("tell-nowhere 32", "tell-long-label 32"):
            assert informed.tell(call) == [("", RANDOM, counted(32), "unlabelled")]


@pytest.mark.parametrize(
    "call", ["tell-unreadable 32", "tell-astray 32", "tell 0", "tell 65", "tell 80"]
)
def test_a_secret_goes_out_whole_or_not_at_all(informer_path, tmp_path, call):
    with Informed(informer_path, tmp_path) as informed:
        assert informed.tell(call) == [("EXPORTER_SECRET", RANDOM, b"", "unreadable")]
        assert informed.programs.losses().fault_records == 1


@pytest.mark.parametrize("call", ["tell-short-random 32", "tell-no-random 32"])
def test_what_does_not_look_like_a_client_random_is_none(informer_path, tmp_path, call):
    with Informed(informer_path, tmp_path) as informed:
        assert informed.tell(call) == [("EXPORTER_SECRET", b"", b"", "unreadable")]
        assert informed.programs.losses().fault_records == 1


def test_constants(informer_path, tmp_path):
    told = Told(WAYS.label, Operand(None, (), 8), *(WAYS.random, Operand(None, (), 32)), *(
        WAYS.secret, Operand(None, (), 3)
    ))  # fmt: skip
    with Informed(informer_path, tmp_path, told=told) as informed:
        assert informed.tell("tell 32") == [("EXPORTER", RANDOM, counted(3), "")]


def test_others_are_not_listened_to(informer_path, tmp_path):
    with Informed(informer_path, tmp_path, settings(comms=("somebody-else",))) as informed:
        assert informed.tell("tell 32") == []


def test_a_full_ring_is_counted(informer_path, tmp_path):
    with Informed(informer_path, tmp_path, settings(ring=4096)) as informed:
        told = informed.tell(*["tell 32"] * 40)
        losses = informed.programs.losses()
        assert 0 < len(told) < 40
        assert (losses.ring_full_records, len(told)) == (40 - len(told), len(told))
