# SPDX-License-Identifier: Apache-2.0
"""Parts of commands become commands; whatever is missing is said."""

import pytest
from records import plaintext
from shell_records import begun, command, line, over

from ecapture._wire import ZSH_EPROG
from ecapture.events import Summary
from ecapture.pipeline.commands import Commands, unmetafied


def passed(*events, **how):
    return Commands(Summary(), **how).feed(list(events))


def test_three_parts_are_a_command():
    assert passed(begun(), line(), over()) == [command()]


def test_other_events_pass_untouched():
    events = [plaintext()]
    assert Commands(Summary()).feed(events) is events
    assert passed(plaintext(), begun(), line(), plaintext(b"x"), over()) == [
        plaintext(),
        plaintext(b"x"),
        command(),
    ]


def test_lines_are_joined_and_pieces_too():
    assert passed(
        begun(),
        line(b"cat ", last=False),
        line(b"<<X", offset=4),
        line(b"", line=1),
        line(b"X", line=2),
        over(lines=3),
    ) == [command("cat <<X\n\nX")]


def test_lines_that_have_their_line_feeds_are_joined_as_they_are():
    how = {"encoding": "read"}
    parts = [line(b"cat <<X\n", **how), line(b"a" * 10, line=1, **how), line(b"b\n", line=2, **how)]
    assert passed(begun(), *parts, over(lines=3)) == [command("cat <<X\n" + "a" * 10 + "b")]


@pytest.mark.parametrize(("origin", "shown"), [("typed", 1), ("script", 0), ("sourced", 0)])
def test_a_remark_that_nobody_typed_is_no_command(origin, shown):
    parts = [line(b"# remark\n", encoding="read"), over(ending="not run", status=None)]
    assert len(passed(begun(origin=origin), *parts)) == shown
    parts[1] = over(ending="not run", status=2)
    assert len(passed(begun(origin=origin), *parts)) == 1


def test_what_history_makes_of_a_line_takes_its_place():
    expanded = line(b"echo ls", line=1, form="expanded")
    assert passed(begun(), line(b"if :"), line(b"echo !!", line=1), expanded, over(lines=2)) == [
        command("if :\necho ls", typed="if :\necho !!")
    ]


def test_a_whole_takes_the_place_of_all_lines():
    whole = line(b"for a\ndo\n", line=1, form="whole", encoding="meta")
    parts = [line(b"!f\n", encoding="meta"), line(b"do\n", line=1, encoding="meta"), whole]
    assert passed(begun(), *parts, over(lines=2)) == [command("for a\ndo", typed="!f\ndo")]
    parts[2] = line(b"!f\ndo\n", line=1, form="whole", encoding="meta")
    assert passed(begun(), *parts, over(lines=2)) == [command("!f\ndo")]


# "true Ã" as zsh keeps it: a list of one command of two words, the second in the strings behind
WORDS = bytes.fromhex("41260000 01000000 46000000 00000000 14000000 00000000")
STRINGS = b"true\0\xc3\x83\xa3\0"
HEAD = ZSH_EPROG.pack(0, len(WORDS + STRINGS), 0, 1, 64, 64, 64 + len(WORDS))


def parsed(head=HEAD, program=WORDS + STRINGS):
    how = {"encoding": "wordcode"}
    return [line(head, **how), line(program, line=1, **how)]


def test_what_zsh_made_of_a_text_becomes_text():
    script = {"origin": "script", "place": "job"}
    assert passed(begun(**script), *parsed(), over(lines=2)) == [command("true Ã", **script)]
    assert passed(begun(limit=3, **script), *parsed(), over(lines=2)) == [
        command("tru", missing="truncated", **script)
    ]


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        (parsed(HEAD[:-1]), "unreadable"),
        (parsed(program=WORDS), "unreadable"),
        (parsed(program=b""), "unreadable"),
        (parsed()[:1], "lost"),
        ([line(HEAD, encoding="wordcode", missing="truncated")], "truncated"),
    ],
)
def test_what_zsh_made_of_a_text_is_right_or_there_is_none(parts, missing):
    assert passed(begun(origin="script"), *parts, over(lines=2)) == [
        command("", origin="script", missing=missing)
    ]


def test_what_zsh_made_of_a_text_is_not_kept():
    stage = Commands(Summary())
    pieces = [
        line(WORDS, line=1, encoding="wordcode", last=False),
        line(STRINGS, line=1, offset=len(WORDS), encoding="wordcode"),
    ]
    assert stage.feed([begun(origin="script"), parsed()[0], *pieces]) == []
    [known] = stage._open.values()
    assert known.printed == "true Ã"
    assert [len(kept.raw) for kept in known.given.values()] == [0, 0]
    assert stage.feed([over(lines=2)]) == [command("true Ã", origin="script")]
    assert passed(begun(origin="script"), parsed()[0], pieces[1], over(lines=2)) == [
        command("", origin="script", missing="lost")
    ]


def test_a_line_that_was_refused_was_not_run():
    refused = line(b"", form="refused")
    assert passed(begun(), line(b"!x"), refused, over()) == [command("!x", ended="not run")]


@pytest.mark.parametrize("text", [b"", b"   ", b"\t"])
def test_a_blank_line_is_no_command(text):
    assert passed(begun(), line(text), over()) == []


def test_bytes_that_are_no_utf_8_are_escaped():
    assert passed(begun(), line(b"echo \xff\xc3\xa9"), over()) == [command("echo \\xffé")]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([begun(), line(b"a", last=False), line(b"c", offset=2)], "ac"),
        ([begun(), line(b"a", last=False)], "a"),
        ([begun(), line(b"b", offset=1)], "b"),
        ([begun(), line(b"b", line=1)], "b"),
        ([begun()], ""),
        ([], ""),
    ],
)
def test_what_found_no_room_is_said(parts, text):
    (found,) = passed(*parts, over())
    assert (found.text, found.missing) == (text, "lost")


def test_without_its_beginning_a_command_is_still_told_of():
    (found,) = passed(line(), over())
    assert (found.text, found.missing, found.uid, found.directory) == ("ls", "lost", 1000, None)


def test_what_was_typed_unseen_is_said():
    assert passed(begun(), over(lines=0)) == [command("", missing="unseen")]


@pytest.mark.parametrize("missing", ["truncated", "unreadable"])
def test_what_was_cut_is_said_and_counted(missing):
    summary = Summary()
    stage = Commands(summary)
    assert stage.feed([begun(), line(missing=missing), over()]) == [command(missing=missing)]
    assert (summary.events, summary.bytes) == (1, 2)
    assert (summary.truncated, summary.unreadable) == ((1, 0) if missing == "truncated" else (0, 1))


def test_sessions_and_processes_do_not_mix():
    parts = [begun(), begun(pid=5), begun(session=8)]
    parts += [line(b"one"), line(b"two", pid=5), line(b"three", session=8)]
    parts += [over(), over(pid=5), over(session=8)]
    assert [found.text for found in passed(*parts)] == ["one", "two", "three"]


def test_what_runs_when_the_capture_ends_is_told_of():
    stage = Commands(Summary())
    assert stage.feed([begun(), line(b"sleep 9")]) == []
    (found,) = stage.close()
    assert (found.text, found.ended, found.status, found.duration_ns) == (
        "sleep 9",
        "running",
        None,
        None,
    )
    assert stage.close() == []


def test_what_is_open_is_bounded():
    stage = Commands(Summary(), open_commands=2)
    out = []
    for number in range(5):
        out += stage.feed([begun(command=number), line(b"%d" % number, command=number)])
    assert [(found.text, found.ended) for found in out] == [
        ("0", "running"),
        ("1", "running"),
        ("2", "running"),
    ]


def test_what_is_kept_of_open_commands_is_bounded():
    stage = Commands(Summary(), open_bytes=10_000)
    out = []
    for number in range(9):
        out += stage.feed([begun(command=number), line(b"%d" % number * 4000, command=number)])
    assert [(found.text[0], len(found.text), found.ended) for found in out] == [
        (str(number), 4000, "running") for number in range(7)
    ]
    # nothing is left behind of those that ended
    for number in range(7, 9):
        assert len(stage.feed([over(command=number)])) == 1
    for number in range(100):
        parts = [begun(command=number), line(b"x" * 9000, command=number), over(command=number)]
        assert [found.ended for found in stage.feed(parts)] == ["returned"]
    # lines without a text are not free
    empty = [line(b"x"), *(line(b"", line=number) for number in range(1, 1000))]
    assert stage.feed([begun(), *empty]) != []


def test_a_killed_shell_has_a_signal_and_no_status():
    (found,) = passed(begun(), line(), over(ending="killed", status=9))
    assert (found.signal, found.status) == (9, None)


def test_how_long_a_job_runs_that_was_left_is_not_known():
    (found,) = passed(begun(origin="script"), line(), over(ending="left", status=None))
    assert found.duration_ns is None


def test_the_end_of_a_printed_here_document_is_no_line():
    (found,) = passed(begun(origin="script"), line(b"cat <<X\nX\n"), over())
    assert (found.text, found.typed) == ("cat <<X\nX", "")


@pytest.mark.parametrize(
    ("kept", "typed"),
    [
        (b"", b""),
        (b"plain", b"plain"),
        ("é".encode(), "é".encode()),
        (b"\xc3\x83\xa3", "Ã".encode()),
        (b"\x83\x20", b"\x00"),
        (b"a\x83", b"a"),
        (b"\x83\x83", b""),
    ],
)
def test_what_zsh_keeps_becomes_what_was_typed(kept, typed):
    assert unmetafied(kept) == typed


# --- fish ---


def wide(text, **fields):
    return line(text.encode("utf-32-le"), encoding="wide", **fields)


def test_characters_of_four_bytes_are_narrowed():
    text = "echo ä€😀\nand more"
    assert passed(begun(), wide(text), over()) == [command(text)]
    raw = text.encode("utf-32-le")
    pieces = [
        line(raw[:21], encoding="wide", last=False),
        line(raw[21:], encoding="wide", offset=21),
    ]
    assert passed(begun(), *pieces, over()) == [command(text)]


def test_bytes_that_were_no_text_are_told_as_such():
    direct = "".join(chr(0xF600 + byte) for byte in (0xFF, 0xC3, 0xA4, 0xC3))
    assert passed(begun(), wide(f"x{direct}"), over()) == [command("x\\xffä\\xc3")]
    for raw in (b"\0\0\x11\0", b"\0\xd8\0\0", b"a\0\0"):
        [shown] = passed(begun(), line(b"b\0\0\0" + raw, encoding="wide"), over())
        assert shown.text.startswith("b\\x")


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [("x" * 9, 9, "x" * 9), ("ä" * 9, 9, "ä" * 4), ("x" * 10, 9, "x" * 9), ("ä" * 9, 0, "ä" * 9)],
)
def test_what_is_narrowed_is_cut_between_characters(text, limit, kept):
    summary = Summary()
    [shown] = Commands(summary).feed([begun(limit=limit), wide(text), over()])
    cut = kept != text
    assert (shown.text, shown.typed, shown.missing) == (kept, "", "truncated" if cut else "")
    assert (summary.truncated, summary.bytes) == (cut, len(kept.encode()))


def test_of_what_was_cut_before_no_more_is_said():
    [shown] = passed(begun(limit=99), wide("x" * 9, missing="truncated"), over())
    assert (shown.text, shown.missing) == ("x" * 9, "truncated")
