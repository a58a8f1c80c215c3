# SPDX-License-Identifier: Apache-2.0
"""Invariant: of any conversation, the quick way tells exactly what the long way tells.

PYTHONPATH=src python tests/fuzz/fuzz_turns.py --inputs 100000 --seed 1
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from fuzzing import main

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

from pgconversations import FACTS, conversation, plainly

from ecapture.pipeline.postgres import PostgresStatements


def attempt(source: random.Random) -> None:
    """One conversation, more or less messy, in batches."""
    events = conversation(source, 7, source.choice((0.0, 0.01, 0.1, 0.5)))
    stage = PostgresStatements(facts_of=lambda _: FACTS, text_limit=200)
    told = []
    at = 0
    while at < len(events):
        size = source.randrange(1, 9)
        told += stage.feed(events[at : at + size])
        at += size
    told += stage.close()
    expected = plainly(events, lambda _: FACTS)
    if told != expected:
        raise AssertionError(f"{told} is not {expected}")


if __name__ == "__main__":
    main(attempt)
