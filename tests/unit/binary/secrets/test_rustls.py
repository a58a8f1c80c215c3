# SPDX-License-Identifier: Apache-2.0
"""Which places are believed to tell secrets, and which are not."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from rust_code import LOGS, LOOKS_UP, TELLS, assembled, needs_x86_64

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.rustls import locate_rustls
from ecapture.binary.secrets.sites import NotLocated, Proof
from ecapture.binary.secrets.telling import Operand, Told, label_places
from ecapture.errors import NotExecutable

pytestmark = needs_x86_64
# METHODS has pointers to functions of both other parts
STUB = """
.text
.type {name}, @function
{name}:
    .cfi_startproc
    ret
    .cfi_endproc
"""
WITHOUT_TABLE, WITHOUT_LOG = STUB.replace("{name}", "by_table"), STUB.replace("{name}", "handshake")


def located(elf):
    with elf:
        names = ("log_call", "site", "table_site")
        found = {name: elf.symbol(name) for name in names}
        places = {name: symbol.address for name, symbol in found.items() if symbol is not None}
        labels = label_places(Image(elf))
        answer = locate_rustls(elf)
        if not isinstance(answer, NotLocated):
            for site in answer.sites:
                assert site.offset == elf.file_offset(site.address, executable=True)
                assert site.head == elf.read(site.offset, len(site.head))
    return answer, places, labels


def test_log_of_tls_1_2_is_probed_where_it_is_called(tmp_path):
    found, places, _ = located(assembled(tmp_path, LOGS, WITHOUT_TABLE))
    (site,) = found.sites
    assert (site.address, site.proof) == (places["log_call"], Proof.FRAME_TABLE)
    assert site.labels == ("CLIENT_RANDOM",)
    # rsi, rdx; rcx, r8; r9, the top of the stack
    registers = (Operand(6), Operand(2), Operand(1), Operand(8), Operand(9), Operand(4, (0,)))
    assert site.told == Told(*registers)
    assert any("TLS 1.3" in note for note in found.notes)


def test_behind_will_log_of_tls_1_3(tmp_path):
    found, places, labels = located(assembled(tmp_path, TELLS, LOGS, WITHOUT_TABLE))
    assert {site.address for site in found.sites} == {places["site"], places["log_call"]}
    (site,) = (site for site in found.sites if site.address == places["site"])
    assert site.labels == ("CLIENT_HANDSHAKE_TRAFFIC_SECRET",)
    (label,) = labels["CLIENT_HANDSHAKE_TRAFFIC_SECRET"]
    assert site.told == Told(
        Operand(None, (), label % 4096),
        Operand(None, (), 31),
        Operand(4, (0x58,)),
        Operand(None, (), 32),
        Operand(4, (), 0x10),
        Operand(4, (0x50,)),
    )
    assert found.notes == ()


@pytest.mark.parametrize("shift, index", [("", "0"), ("-8", "8"), ("", "-8")])
def test_labels_from_a_table(tmp_path, shift, index):
    elf = assembled(tmp_path, LOOKS_UP, LOGS, shift=shift, index=index)
    found, places, _ = located(elf)
    (site,) = (site for site in found.sites if site.address == places["table_site"])
    assert set(site.labels) == {
        "CLIENT_EARLY_TRAFFIC_SECRET",
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    }
    assert site.told == Told(
        Operand(15),
        Operand(12),
        Operand(5, (0x58,)),
        Operand(None, (), 32),
        Operand(14),
        Operand(14, (0x40,)),
    )


@pytest.mark.parametrize("branch", ["je", "jne"])
def test_either_way_of_the_branch(tmp_path, branch):
    # with jne, log is called where the code goes straight on, which the answer does not change
    found, places, _ = located(assembled(tmp_path, TELLS, LOGS, WITHOUT_TABLE, branch=branch))
    assert places["site"] in {site.address for site in found.sites}


WRONG = {
    "a random of another length": {"random_length": "31"},
    "another label than was asked for": {"second": "server_text"},
    "a random from a register that the call overwrote": {"random": "%r10"},
    "a random that code behind the call makes": {
        "between": "imul $3, %rbx, %rbx",
        "random": "%rbx",
    },
    "a secret that is made only then": {"between": "call deeper"},
    "a random farther away than a probe can be told": {
        "between": "add $0x7fffffff, %rbp; add $0x7fffffff, %rbp",
        "random": "%rbp",
    },
    "a call through a pointer before it": {"between": "call *0x30(%rsp)"},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_agree_is_not_believed(tmp_path, name):
    found, places, _ = located(assembled(tmp_path, TELLS, LOGS, WITHOUT_TABLE, **WRONG[name]))
    sites = () if isinstance(found, NotLocated) else found.sites
    assert places["site"] not in {site.address for site in sites}


def test_another_label_from_the_table_than_was_asked_for(tmp_path):
    found, places, _ = located(assembled(tmp_path, LOOKS_UP, LOGS, told_label="%rbx"))
    assert places["table_site"] not in {site.address for site in found.sites}


def test_an_accessor_between_is_followed(tmp_path):
    found, places, _ = located(
        assembled(tmp_path, TELLS, LOGS, WITHOUT_TABLE, between="call accessor")
    )
    assert places["site"] in {site.address for site in found.sites}


def test_secrets_that_are_made_only_for_who_asks_are_said_to_be(tmp_path):
    found, _, _ = located(assembled(tmp_path, TELLS, LOGS, WITHOUT_TABLE, between="call deeper"))
    assert [note for note in found.notes if "before 0.22" in note]


@pytest.mark.parametrize("details", [{"label_length": "12"}, {"label": "client_text"}])
def test_a_call_that_is_handed_something_else_is_not_log(tmp_path, details):
    found, _, _ = located(assembled(tmp_path, LOGS, WITHOUT_TABLE, **details))
    assert isinstance(found, NotLocated)


class TestProof:
    """Without the unwinder's table."""

    OPTIONS = ("-Wl,--no-eh-frame-hdr",)

    def proofs(self, elf):
        found, places, _ = located(elf)
        sites = () if isinstance(found, NotLocated) else found.sites
        by_place = {place: name for name, place in places.items()}
        return {by_place[site.address]: site.proof for site in sites}, found

    def test_a_pointer_that_the_loader_makes(self, tmp_path):
        proofs, _ = self.proofs(assembled(tmp_path, LOGS, LOOKS_UP, options=self.OPTIONS))
        assert proofs == {"log_call": Proof.POINTER, "table_site": Proof.POINTER}

    def test_several_calls(self, tmp_path):
        parts = (LOGS.replace("handshake", "other"), WITHOUT_LOG, WITHOUT_TABLE)
        calls = "\n.text\n.hidden other\ncall other\ncall other\n"
        proofs, _ = self.proofs(assembled(tmp_path, calls, *parts, options=self.OPTIONS))
        assert proofs == {"log_call": Proof.CALL_TARGET}

    def test_one_call_is_none(self, tmp_path):
        parts = (WITHOUT_LOG, WITHOUT_TABLE)
        # bytes that are no instruction keep what stands before them from being the beginning
        code = LOGS.replace("handshake", "other").replace("other:", ".byte 6\nother:", 1)
        calls = "\n.text\n.hidden other\ncall other\n.byte 6\n"
        proofs, found = self.proofs(assembled(tmp_path, *parts, calls, code, options=self.OPTIONS))
        assert proofs == {}
        assert "not proven" in found.reason


def test_bytes_that_only_look_like_the_instruction_are_not_probed(tmp_path):
    # Decoding from the start of the function runs over the first bytes of what looks right.
    code = LOGS.replace("lea {label}", ".byte 0x48, 0xb8\n    lea {label}")
    found, _, _ = located(assembled(tmp_path, code, WITHOUT_TABLE))
    sites = () if isinstance(found, NotLocated) else found.sites
    assert sites == ()


@pytest.mark.parametrize("options", [(), TestProof.OPTIONS])
def test_a_file_that_names_labels_without_end_takes_bounded_time(tmp_path, options):
    asks = "lea client_text(%rip), %rsi; mov $31, %edx; je 1f; je 2f; 1: nop; 2: call *%rax; nop"
    code = f"\n.text\n.rept 4000\n{asks}\n.endr\n.fill 100000, 1, 0x90\n"
    with assembled(tmp_path, WITHOUT_LOG, WITHOUT_TABLE, code, options=options) as elf:
        before = time.process_time()
        locate_rustls(elf)
        assert time.process_time() - before < 60, "seconds on a machine that does other things"


def test_damaged_files_end_in_an_answer(tmp_path):
    with assembled(tmp_path, TELLS, LOGS, LOOKS_UP) as elf:
        whole = Path(elf.path).read_bytes()
    source = random.Random(5)
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(source.randint(1, 30)):
            broken[source.randrange(len(broken))] = source.randrange(256)
        path = tmp_path / "broken"
        path.write_bytes(broken[: source.randint(64, len(broken))])
        try:
            with ElfFile(path) as elf:
                locate_rustls(elf)
        except NotExecutable:
            continue


def test_a_file_without_labels(tmp_path):
    with ElfFile("/proc/self/exe") as elf:
        found = locate_rustls(elf)
    assert isinstance(found, NotLocated)
    assert re.search("labels", found.reason)
