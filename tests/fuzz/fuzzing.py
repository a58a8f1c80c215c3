# SPDX-License-Identifier: Apache-2.0
"""The loop of the fuzz scripts, and how their inputs come about.

An input is a valid stream of which some bytes, lengths or pieces were changed, cut into pieces at
random places. A run can be repeated: the number of an input and the seed determine it.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable, Sequence

SLOWEST = 0.5
"""How many seconds of work one small input may be."""
GROWTH = 64 << 10
"""By how many KiB the process may grow after the first tenth of the inputs."""

INTERESTING = (
    b"", b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b":", b"\xff", b"\x80",
    b"-1", b"0", b"99999999999999999999", b"18446744073709551615", b"7fffffffffffffff", b"A" * 300,
)  # fmt: skip


def mutate(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return one of ``seeds``, or some in a row, with a few changes."""
    data = bytearray(chance.choice(seeds))
    while chance.random() < 0.3:
        data += chance.choice(seeds)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(words)
            case 2:
                del data[at : at + chance.choice((1, 2, 10, 100))]
            case 3:
                data[at : at + 4] = chance.choice(INTERESTING)
            case 4:
                begin = chance.randrange(len(data) + 1)
                data[at:at] = data[begin : begin + chance.randrange(60)]
            case _:
                data[at:at] = chance.randbytes(chance.choice((1, 4, 30)))
    return bytes(data)


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Cut ``data`` at random places, seldom at every one."""
    match chance.randrange(8):
        case 0:
            return [data[i : i + 1] for i in range(len(data))]
        case 1 | 2:
            return [data]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def main(attempt: Callable[[random.Random], object]) -> None:
    """Run ``attempt`` for as many inputs as the command line says."""
    options = argparse.ArgumentParser()
    options.add_argument("--inputs", type=int, default=20_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--first", type=int, default=0, help="the number of the first input")
    arguments = options.parse_args()
    settled = 0
    slowest = 0.0
    began = time.monotonic()
    for number in range(arguments.first, arguments.first + arguments.inputs):
        start = time.process_time()
        try:
            attempt(random.Random(f"{arguments.seed}/{number}"))
        except BaseException:
            print(f"input {number} of seed {arguments.seed}: run again with --first {number}")
            raise
        slowest = max(slowest, time.process_time() - start)
        assert slowest < SLOWEST, f"input {number} took {slowest:.1f} s"
        if number - arguments.first == arguments.inputs // 10:
            settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - settled
    assert grown < GROWTH, f"grew by {grown} KiB"
    seconds = time.monotonic() - began
    print(
        f"{arguments.inputs} inputs in {seconds:.0f} s, the slowest in {slowest * 1000:.0f} ms; "
        f"grew by {grown} KiB after the first tenth"
    )
