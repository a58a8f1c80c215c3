# SPDX-License-Identifier: Apache-2.0
"""Invariant: of any bytes, ``blocks`` gives whole blocks one behind the other and only ValueError
escapes, as from ``options_of``; a file that is not changed is read as it was written, and one that
is cut off up to its last whole block; ``openings`` reads nothing outside of a packet.

    PYTHONPATH=src python tests/fuzz/fuzz_pcapng.py --inputs 100000 --seed 1
"""

from __future__ import annotations

import random

from fuzz_held import SEEDS as FRAMES
from fuzz_held import WORDS as FRAME_WORDS
from fuzzing import main, mutate

from ecapture.formats.pcapng import (
    Block,
    Code,
    LinkType,
    blocks,
    decryption_secrets,
    enhanced_packet,
    interface_description,
    interface_statistics,
    options_of,
    process_comment,
    process_of,
    process_option,
    section_header,
)
from ecapture.pipeline import _openings

NOW = 10**18
LINKS = tuple(LinkType)


def packet(chance: random.Random) -> bytes:
    pid, name = chance.randrange(1 << 32), chance.choice(("curl", "", "ü" * 9, "x" * 40))
    frame = mutate(chance, FRAMES, FRAME_WORDS)[:1600]
    options = [process_option(pid, name)] * chance.randrange(3)
    comment = process_comment(pid, name) if chance.random() < 0.5 else ""
    number = chance.randrange(len(LINKS) + 2)
    return enhanced_packet(number, NOW, frame, flags=1, comment=comment, options=options)


def written(chance: random.Random) -> list[bytes]:
    """The blocks of a file."""
    made = [section_header(hardware="x86_64", system="Linux", application="ecapture")]
    made += [interface_description(kind, name=f"i{kind}", filter_="tcp") for kind in LINKS]
    for _ in range(chance.randrange(6)):
        made.append(packet(chance) if chance.random() < 0.8 else decryption_secrets(b"A b c\n"))
    made.append(interface_statistics(0, NOW, received=7, dropped=1, comment="cut"))
    return made


def read(content: bytes) -> list[bytes]:
    """The blocks that can be read; looks into each, as a reader would."""
    found, end = [], 0
    try:
        for at, kind, length in blocks(content):
            assert at == end
            end = at + length
            assert end <= len(content)
            found.append(content[at:end])
            head = 28 if kind == Block.PACKET else 8
            look(content, at + head, end - 4)
    except ValueError:
        pass
    return found


def look(content: bytes, at: int, end: int) -> None:
    try:
        options = options_of(content, at, end)
    except ValueError:
        return
    assert sum(len(value) + 4 for _code, value in options) <= max(0, end - at)
    told = process_of(options)
    assert told is None or any(code == Code.CUSTOM_BYTES for code, _value in options)


def look_for_openings(content: bytes) -> None:
    whole = read(content)
    ends, at = {}, 0
    for block in whole:
        ends[at] = at + len(block)
        at += len(block)
    for block, kind, source, destination, payload, end in _openings.openings(content, LINKS):
        assert kind in (1, 2, 3)
        assert block + 28 < payload <= end <= ends.get(block, len(content)) - 4
        assert len(source) == len(destination) in (6, 18)


def attempt(chance: random.Random) -> None:
    made = written(chance)
    whole = b"".join(made)
    assert read(whole) == made
    cut = chance.randrange(len(whole) + 1)
    assert read(whole[:cut]) == made[: len(read(whole[:cut]))]
    assert len(b"".join(read(whole[:cut]))) <= cut
    changed = mutate(chance, made, [block[:8] for block in made] + [b"\x0c\0\0\0", b"\xff" * 4])
    read(changed)
    packets = [packet(chance) for _ in range(chance.randrange(1, 4))]
    words = [bytes(4), b"\xff\xff\xff\xff", b"\x20\0\0\0", b"\x1c\0\0\0", *FRAME_WORDS]
    look_for_openings(b"".join(packets))
    batch = bytearray(b"".join(packets))
    for _ in range(chance.randrange(1, 4)):  # lengths of a block that the kernel would not make
        at = chance.choice((4, 8, 20, 24)) + chance.choice((0, len(packets[0])))
        batch[at : at + 4] = chance.choice(words)[:4].ljust(4, b"\0")
    look_for_openings(bytes(batch))


if __name__ == "__main__":
    main(attempt)
