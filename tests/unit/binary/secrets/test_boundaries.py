# SPDX-License-Identifier: Apache-2.0
"""Where instructions begin, and why that is so."""

from __future__ import annotations

import pytest
from rust_code import LOGS, LOOKS_UP, TELLS, assembled, needs_x86_64

from ecapture.binary.secrets import boundaries as module
from ecapture.binary.secrets.boundaries import Boundaries
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof
from ecapture.binary.secrets.telling import label_places

pytestmark = needs_x86_64
BARE = ("-Wl,--no-eh-frame-hdr",)


def test_only_beginnings_of_instructions_are_proven(tmp_path):
    with assembled(tmp_path, TELLS, LOGS, LOOKS_UP) as elf:
        boundaries, image = Boundaries(elf, Image(elf)), Image(elf)
        address = elf.symbol("log_call").address
        assert boundaries.proof_of(address) is Proof.FRAME_TABLE
        following = image.instruction(address).end
        assert boundaries.proof_of(following) is Proof.FRAME_TABLE
        for inside in range(address + 1, following):
            assert boundaries.proof_of(inside) is None
        assert boundaries.proof_of(1 << 40) is None
        assert boundaries.proof_of(0) is None


def test_pointers_that_the_loader_makes(tmp_path):
    with assembled(tmp_path, TELLS, LOGS, LOOKS_UP, options=BARE) as elf:
        image = Image(elf)
        boundaries = Boundaries(elf, image)
        labels = label_places(image)
        (early,) = labels["CLIENT_EARLY_TRAFFIC_SECRET"]
        (client,) = labels["CLIENT_HANDSHAKE_TRAFFIC_SECRET"]
        (first,), (second,) = (boundaries.pointers_to({label}) for label in (early, client))
        assert second == first + 8
        assert boundaries.proof_of(elf.symbol("log_call").address) is Proof.POINTER
        assert boundaries.proof_of(elf.symbol("log_call").address + 1) is None


@pytest.mark.parametrize(
    "options", [("-no-pie", "-static"), ("-pie", "-Wl,-z,pack-relative-relocs")]
)
def test_pointers_that_stand_in_the_file(tmp_path, options):
    start = "\n.text\n.globl _start\n_start: ret\n"
    with assembled(tmp_path, start, LOGS, LOOKS_UP, options=options, shared="") as elf:
        image = Image(elf)
        (label,) = label_places(image)["CLIENT_EARLY_TRAFFIC_SECRET"]
        (place,) = Boundaries(elf, image).pointers_to({label})
        assert image.bytes_at(place, 8) == label.to_bytes(8, "little")


def test_calls_must_be_several(tmp_path, monkeypatch):
    code = LOGS.replace("handshake", "other").replace("other:", ".byte 6\nother:", 1)
    calls = "\n.text\n.hidden other\ncall other\ncall other\n.byte 6\n"
    stubs = "\n.text\n.type by_table, @function\nby_table: ret\nhandshake: ret\n.byte 6\n"
    with assembled(tmp_path, stubs, calls, code, options=BARE) as elf:
        address = elf.symbol("log_call").address
        assert Boundaries(elf, Image(elf)).proof_of(address) is Proof.CALL_TARGET
        monkeypatch.setattr(module, "_CALLS", 3)
        assert Boundaries(elf, Image(elf)).proof_of(address) is None


def test_instructions_of_aarch64_have_their_places(tmp_path):
    with assembled(tmp_path, LOGS, LOOKS_UP) as elf:
        image = Image(elf)
        image.machine = "aarch64"
        assert Boundaries(elf, image).proof_of(elf.symbol("log_call").address | 1) is None
