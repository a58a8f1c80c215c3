# SPDX-License-Identifier: Apache-2.0
"""The beginning of header lines, and remarks at their end."""

from spoken import CONNECTION, START, http, request_head

from ecapture.events import Connection
from ecapture.formats.header_line import HeaderLine, all_marks, remark
from ecapture.formats.words import phrase
from ecapture.protocols.messages import Mark


def test_opening_names_the_way_of_the_bytes() -> None:
    lines = HeaderLine()
    begin = "--- 2026-01-02T03:04:05.000000001Z pid=7 tid=8 comm=curl"
    sent = lines.opening(http("request"), START + 1)
    assert sent == f"{begin} write 10.0.0.1:40000 > 10.0.0.2:443"
    received = lines.opening(http("response"), START + 1)
    assert received == f"{begin} read 10.0.0.2:443 > 10.0.0.1:40000"


def test_opening_tells_apart_what_differs_in_one_part_only() -> None:
    lines = HeaderLine()
    seen = {
        lines.opening(http("request", **changes), START)
        for changes in (
            {},
            {"pid": 9},
            {"tid": 9},
            {"comm": "a b"},
            {"direction": "read"},
            {"connection": None},
            {"connection": Connection("ipv6", "::1", 1, "::2", 2, "descriptor")},
        )
    }
    assert len(seen) == 7
    assert any("? > ?" in line for line in seen)
    assert any("[::1]:1 > [::2]:2" in line for line in seen)
    assert any(r"comm=a\x20b" in line for line in seen)


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("ecapture.formats.header_line._MAXIMUM_CACHED", 3)
    lines = HeaderLine()
    for pid in range(10):
        lines.opening(http("request", pid=pid, connection=CONNECTION), START)
        assert lines.word(f"a {pid}") == rf"a\x20{pid}"
    assert len(lines._who) <= 3
    assert len(lines._words) <= 3


def test_time_changes_with_its_second() -> None:
    lines = HeaderLine()
    assert lines.time(START) == "2026-01-02T03:04:05.000000000Z"
    assert lines.time(START + 999_999_999) == "2026-01-02T03:04:05.999999999Z"
    assert lines.time(START + 1_000_000_000) == "2026-01-02T03:04:06.000000000Z"
    assert lines.time(0) == "1970-01-01T00:00:00.000000000Z"


def test_remarks() -> None:
    assert remark((), "") == ""
    assert remark((Mark.JOINED_LATE, Mark.GAP), "") == " [joined late, gap]"
    assert remark((Mark.MALFORMED,), "a\nb é \u2028") == r" [malformed: a\x0ab \xe9 \u2028]"
    assert remark((), "why") == " [why]"
    assert len(phrase("x" * 10_000)) == 512


def test_marks_of_head_and_message_come_once() -> None:
    head = request_head(marks=(Mark.GAP,))
    message = http("request", head, marks=(Mark.LIMITED, Mark.GAP))
    assert all_marks(message) == (Mark.GAP, Mark.LIMITED)
    assert all_marks(http("request", marks=(Mark.GAP,))) == (Mark.GAP,)
