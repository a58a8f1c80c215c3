# SPDX-License-Identifier: Apache-2.0
"""What is in a list of events is found wherever it stands, and counted."""

from __future__ import annotations

import msgspec
import pytest

from ecapture.events import ProcessExit, Served, Statement
from ecapture.pipeline import _tally

GONE = ProcessExit(5, 7, "x")
RUN = Served(1, 7, 7, 0, "postgres", "read", 1, "", "", 0, 3, b"abc", True, False, "", False)


@pytest.mark.parametrize("at", range(4))
def test_a_kind_is_found_at_any_place(at: int) -> None:
    events: list[object] = [GONE, GONE, GONE]
    events.insert(at, RUN)
    assert _tally.contains(events, (Statement, Served))
    assert not _tally.contains(events, (Statement,))
    assert not _tally.contains([], (Statement,))


def test_runs_are_counted() -> None:
    later = msgspec.structs.replace(RUN, kept_offset=3, payload=b"xy")
    written = msgspec.structs.replace(RUN, direction="write", payload=b"", missing="unreadable")
    assert _tally.served([RUN, GONE, later, written]) == (3, 5, 1, 1)
    assert _tally.served([GONE]) == (0, 0, 0, 0)


def test_statements_are_counted() -> None:
    whole = Statement(2, 1, 3, 3, 0, "mysqld", "mysql", "query", 3)
    cut = msgspec.structs.replace(whole, missing="truncated")
    unread = msgspec.structs.replace(whole, missing="unreadable")
    assert _tally.statements([whole, GONE, cut, unread, cut]) == (4, 2, 1)
    bound = msgspec.structs.replace(whole, marks=("gap", "parameters truncated"))
    both = msgspec.structs.replace(bound, missing="truncated")
    assert _tally.statements([whole, bound, both]) == (3, 2, 0)
