# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever is fed to a ContentReader, nothing escapes it, every byte is counted, and no
more than the limits is given out or worked off.

    PYTHONPATH=src python tests/fuzz/fuzz_body.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import gzip
import random
import zlib

import brotli
import zstandard
from fuzzing import main, mutate, pieces

from ecapture.protocols.body import ContentReader

TEXTS = (b"", b"x", b"hello hello hello " * 9, bytes(range(256)), bytes(50_000))
ENCODE = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=2),
    "zstd": zstandard.compress,
}
SEEDS = {name: [encode(text) for text in TEXTS] for name, encode in ENCODE.items()}
EVERY = [seed for seeds in SEEDS.values() for seed in seeds]
NESTED = [ENCODE[outer](seed) for outer in ENCODE for seed in EVERY]
LIMIT, FLOOR, RATIO = 2000, 100_000, 10


def attempt(chance: random.Random) -> None:
    codings = tuple(
        chance.choice((*ENCODE, "unknown")) for _ in range(chance.choice((1, 1, 1, 2, 3)))
    )
    seeds = SEEDS.get(codings[0], EVERY) if len(codings) == 1 else NESTED
    data = mutate(chance, seeds, EVERY)
    tapped = 0

    def tap(piece: bytes) -> None:
        nonlocal tapped
        tapped += len(piece)

    reader = ContentReader(
        codings, body_limit=LIMIT, expansion_floor=FLOOR, expansion_ratio=RATIO, tap=tap
    )
    given = missing = 0
    for piece in pieces(chance, data):
        if chance.random() < 0.02:
            missing += 7
            reader.gap(7)
        given += len(reader.feed(piece))
    reader.finish()
    assert reader.size == len(data) + missing
    assert given == reader.kept <= LIMIT
    assert reader.decoded_size <= max(FLOOR, RATIO * reader.size)
    assert tapped <= reader.decoded_size
    assert bool(reader.marks) == bool(reader.problem)


if __name__ == "__main__":
    main(attempt)
