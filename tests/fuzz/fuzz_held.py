# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever packets and secrets are fed to Held, every byte comes out once, in order, at
the end at the latest; nothing escapes it, and its tables stay bounded.

    PYTHONPATH=src python tests/fuzz/fuzz_held.py --inputs 100000 --seed 1
"""

from __future__ import annotations

import random

from fuzzing import main, mutate

from ecapture.events import Interface, Packets, Secret
from ecapture.formats.pcapng import LinkType, enhanced_packet, interface_statistics
from ecapture.pipeline.held import Held

RANDOM = bytes(range(32))
ENDS = b"\x0a\0\0\1\x0a\0\0\2", b"\x0a\0\0\2\x0a\0\0\1"
PORTS = b"\x9c\x40\x01\xbb", b"\x01\xbb\x9c\x40"
LABELS = (
    *("CLIENT_RANDOM", "CLIENT_EARLY_TRAFFIC_SECRET", "EXPORTER_SECRET"),
    *("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET"),
    *("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"),
)
HELLO = b"\x16\3\1\0\x50\1\0\0\x4c\3\3" + RANDOM + b"\0\0\2\x13\1\1\0\0\4\0\x2a\0\0"
ANSWER = b"\x16\3\3\0\x50\2\0\0\x4c\3\3" + bytes(32) + b"\0\x13\1" + bytes(9)
# RFC 9000, 17.2: of a version, an id of eight bytes, no token, and what is left
INITIAL = b"\xc0\0\0\0\1\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\0\0\x44\x9e" + bytes(1182)
LIMIT = 20_000


def frame(side: int, payload: bytes, protocol: int) -> bytes:
    transport = b"\0" * 8 + b"\x50\x18" + bytes(6) if protocol == 6 else bytes(4)
    content = PORTS[side] + transport + payload
    length = (20 + len(content)).to_bytes(2, "big")
    head = b"\x45\0" + length + bytes(4) + b"\x40" + bytes([protocol]) + bytes(2) + ENDS[side]
    return bytes(12) + b"\x08\0" + head + content


SEEDS = [
    frame(0, HELLO, 6),
    frame(1, ANSWER, 6),
    frame(1, ANSWER.replace(b"\x13\1", b"\xc0\x2f"), 6),
    frame(0, INITIAL, 17),
    frame(1, INITIAL, 17),
    frame(0, b"\xd0\0\0\0\1" + bytes(40), 17),
    frame(0, b"words", 6),
    bytes(12) + b"\x81\0\0\7" + frame(0, HELLO, 6)[12:],
]
WORDS = [HELLO, ANSWER, INITIAL[:18], ENDS[0], b"\x81\0", b"\x86\xdd", b"\x45", b"\x60"]


def attempt(chance: random.Random) -> None:
    held = Held(held_bytes=chance.choice((0, 500, LIMIT)))
    now, given, written = 10**18, b"", b""
    kinds = [chance.choice(list(LinkType)) for _ in range(2)] + [LinkType.ETHERNET]
    out = held.feed([Interface(now, number, "x", kind, 9) for number, kind in enumerate(kinds)])
    assert len(out) == len(kinds)
    for _ in range(chance.randrange(1, 12)):
        now += chance.choice((0, 1, 10**8, 10**10))
        if chance.random() < 0.6:
            batch = b""
            for _ in range(chance.randrange(1, 6)):
                content = chance.choice(SEEDS)
                if chance.random() < 0.6:
                    content = mutate(chance, [content], WORDS)
                batch += enhanced_packet(chance.choice((0, 1, 2, 2, 2, 3, 999)), now, content)
                if chance.random() < 0.05:
                    batch += interface_statistics(0, now, received=1)
            given += batch
            out = held.feed([Packets(now, batch)])
        elif chance.random() < 0.7:
            random_ = RANDOM if chance.random() < 0.9 else chance.randbytes(32)
            told = Secret(now, 1, 1, 0, "x", (1, 1, 1), chance.choice(LABELS), random_, bytes(48))
            out = held.feed([told])
            assert out.pop(0) is told
        else:
            out = held.flush(now)
        written += b"".join(event.blocks for event in out)
        assert given.startswith(written)
        assert len(given) - len(written) == held.held_bytes
        assert held.held_bytes <= LIMIT
    written += b"".join(event.blocks for event in held.close())
    assert written == given
    assert held.held_bytes == 0


if __name__ == "__main__":
    main(attempt)
