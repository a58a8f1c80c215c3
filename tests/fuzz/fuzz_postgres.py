# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever a back-end of PostgreSQL and its client are said to have exchanged, nothing
escapes a Session, and what it keeps is bounded.

    PYTHONPATH=src python tests/fuzz/fuzz_postgres.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from fuzzing import main, mutate, pieces

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

from pgmessages import (
    BOUND,
    PARSED,
    READY,
    SYNC,
    bind,
    complete,
    describe,
    execute,
    failure,
    message,
    parse,
    query,
    startup,
)

from ecapture.events import Served, SessionFacts, Statement
from ecapture.pipeline.postgres_session import Session

LIMIT = 200
SEEDS = [
    startup(user="a", database="b") + query("SELECT 1") + query("SELECT 2; SELECT 3"),
    parse("s", "SELECT $1", (23, 25)) + describe("S", "s") + SYNC,
    bind("p", "s", (b"\0\0\0\1", None, b"text"), (1, 0, 0)) + execute("p", 5) + SYNC,
    parse("", "x") + bind("", "") + describe("P") + execute() + SYNC,
    message("F", bytes(12)) + message("C", b"Ss\0") + message("X"),
    READY + complete("INSERT 0 5") + READY + message("I") + message("s") + READY,
    PARSED + BOUND + message("t", b"\0\2\0\0\0\x17\0\0\x06\xa4") + complete("SELECT 1") + READY,
    message("S", b"client_encoding\0LATIN1\0") + message("S", b"application_name\0x\0"),
    failure("42601", "syntax") + READY + message("3") + message("V", bytes(4)) + READY,
    failure("57P01", "ended", "FATAL"),
]
WORDS = [b"\0\0\0\4", b"\xff\xff\xff\xff", b"\0\3\0\0", b"Z\0\0\0\5I", b"Q", b"B", b"\0" * 8]


def attempt(source: random.Random) -> None:
    """One input: said by either side, in runs that may be late, lost or cut."""
    data = mutate(source, SEEDS, WORDS)
    kept = {"read": 0, "write": 0}
    session: Session | None = None
    told: list[Statement] = []
    for number, piece in enumerate(pieces(source, data)):
        direction = source.choice(["read", "write"])
        if source.random() < 0.05:
            kept[direction] += 7
        missing = "unreadable" if source.random() < 0.02 else ""
        event = Served(
            number,
            7,
            7,
            0,
            "postgres",
            direction,  # type: ignore[arg-type]
            1,
            "",
            "",
            kept[direction],
            len(piece),
            b"" if missing else piece,
            source.random() < 0.5,
            False,
            missing,
            source.random() < 0.1,
        )
        kept[direction] += len(piece)
        if session is None:
            session = Session(event, SessionFacts() if source.random() < 0.5 else None, LIMIT)
        session.feed(event, told)
    if session is not None:
        session.close(len(data), told)
    for statement in told:
        if len(statement.text.encode()) > 5 * LIMIT:  # escaped, a byte takes four characters
            raise AssertionError(f"{len(statement.text)} characters were kept")


if __name__ == "__main__":
    main(attempt)
