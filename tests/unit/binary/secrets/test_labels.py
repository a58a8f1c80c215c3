# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.labels import LABELS, find_labels, find_references
from ecapture.binary.secrets.votes import Vote, collect_votes


def rodata(*texts: str) -> str:
    return "\n".join(f'l{n}: .asciz \\"{text}\\"' for n, text in enumerate(texts))


def with_strings(assemble, body: str, *texts: str):
    strings = f".section .rodata\n{rodata(*texts)}\n.text"
    return assemble("-Wl,-Bsymbolic", f=f"{strings}\n{body}", g="ret", h="ret")


def votes(code) -> list[Vote]:
    labels = {a: label for label, places in find_labels(code.image).items() for a in places}
    references = find_references(code.image, labels)
    return collect_votes(code.image, code.functions, references, labels)


def test_every_label_is_found_also_as_the_tail_of_another(compile_c):
    texts = ", ".join(f'"{label}"' for label in LABELS if label != "EXPORTER_SECRET")
    path = compile_c(f"const char *const all[] = {{{texts}}};", "-shared", "-fPIC")
    with ElfFile(path) as elf:
        image = Image(elf)
        found = find_labels(image)
        assert set(found) == set(LABELS)
        assert found["EXPORTER_SECRET"][0] - found["EARLY_EXPORTER_SECRET"][0] == len("EARLY_")
        for label, places in found.items():
            for place in places:
                assert image.bytes_at(place, len(label) + 1) == label.encode() + b"\0"


def test_longer_words_are_no_labels(assemble):
    code = with_strings(assemble, "ret", "MY_SECRET", "CLIENT_RANDOM_2", "XCLIENT_RANDOM")
    assert set(find_labels(code.image)) == {"CLIENT_RANDOM"}  # the tail of the last one


def test_a_call_with_the_label_second_is_a_vote(assemble):
    code = with_strings(assemble, "lea l0(%rip), %rsi\ncall g\nret", "CLIENT_RANDOM")
    (vote,) = votes(code)
    assert vote == Vote(code.address("g"), "CLIENT_RANDOM", code.address("f") + 7)


def test_copies_count_and_overwriting_ends_it(assemble):
    copied = "lea l0(%rip), %rax\nmov %rax, %rsi\ncall g\nret"
    assert len(votes(with_strings(assemble, copied, "CLIENT_RANDOM"))) == 1
    lost = "lea l0(%rip), %rsi\nmov 8(%rdi), %rsi\ncall g\nret"
    assert votes(with_strings(assemble, lost, "CLIENT_RANDOM")) == []
    clobbered = "lea l0(%rip), %rsi\ncall *%rax\ncall g\nret"
    assert votes(with_strings(assemble, clobbered, "CLIENT_RANDOM")) == []


def test_other_arguments_do_not_count(assemble):
    for register in ("rdi", "rdx", "rcx", "r8"):
        body = f"lea l0(%rip), %{register}\ncall g\nret"
        assert votes(with_strings(assemble, body, "CLIENT_RANDOM")) == []


def test_a_label_may_wait_in_a_kept_register_for_a_later_call(assemble):
    body = "lea l0(%rip), %rbx\ncall h\nmov %rbx, %rsi\ncall g\nret"
    code = with_strings(assemble, body, "EXPORTER_SECRET")
    assert [vote.target for vote in votes(code)] == [code.address("g")]


def test_jumps_within_are_followed_and_tail_calls_are_votes(assemble):
    body = "lea l0(%rip), %rsi\njmp 1f\nnop\n1: test %eax, %eax\nje 2f\njmp g\n2: ret"
    code = with_strings(assemble, body, "CLIENT_RANDOM")
    assert [vote.target for vote in votes(code)] == [code.address("g")]


def test_too_far_away_is_no_vote(assemble):
    body = "lea l0(%rip), %rsi\n" + "nop\n" * 41 + "call g\nret"
    assert votes(with_strings(assemble, body, "CLIENT_RANDOM")) == []


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def aarch64_file(tmp_path, code: bytes, strings: bytes):
    # Two parts: code at 0x1000, strings at 0x5000.
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9), 3, 183, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0,
    )  # fmt: skip
    parts = b""
    for flags, place, content in ((5, 0x1000, code), (4, 0x5000, strings)):
        size = len(content)
        parts += struct.pack("<IIQQQQQQ", 1, flags, place, place, place, size, size, 0x1000)
    content = (header + parts).ljust(0x1000, b"\0") + code
    path = tmp_path / "arm64"
    path.write_bytes(content.ljust(0x5000, b"\0") + strings)
    return path


def test_aarch64_pages_and_adds_lead_to_votes(tmp_path):
    # CLIENT_RANDOM at 0x5008 by adrp and add; EXPORTER_SECRET at 0x5016 by adr.
    strings = b"........CLIENT_RANDOM\0EXPORTER_SECRET\0"
    code = words(
        0x90000021,  # 1000: adrp x1, 0x5000
        0xAA0003F3,  # 1004: mov x19, x0
        0x91002021,  # 1008: add x1, x1, #8
        0x94000005,  # 100c: bl 0x1020
        0x50020021,  # 1010: adr x1, 0x5016
        0x94000003,  # 1014: bl 0x1020
        0xD65F03C0,  # 1018: ret
        0xD503201F,  # 101c: nop
        0xD65F03C0,  # 1020: ret
    )
    with ElfFile(aarch64_file(tmp_path, code, strings)) as elf:
        image = Image(elf)
        found = find_labels(image)
        assert found == {"CLIENT_RANDOM": (0x5008,), "EXPORTER_SECRET": (0x5016,)}
        labels = {places[0]: label for label, places in found.items()}
        references = find_references(image, labels)
        assert references == [(0x1000, 0x5008), (0x1010, 0x5016)]
        assert collect_votes(image, Functions(image), references, labels) == [
            Vote(0x1020, "CLIENT_RANDOM", 0x100C),
            Vote(0x1020, "EXPORTER_SECRET", 0x1014),
        ]
