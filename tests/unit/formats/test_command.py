# SPDX-License-Identifier: Apache-2.0
"""Commands of shells in every format that has lines."""

import json
import signal
from pathlib import Path

import jsonschema
import pytest
from shell_records import command

from ecapture.formats import command as form
from ecapture.formats.brief import BriefFormat
from ecapture.formats.conversation import ConversationFormat
from ecapture.formats.jsonl import JsonLinesFormat
from ecapture.formats.text import TextFormat

WHO = "--- 1970-01-01T00:00:00.000003000Z pid=100 comm=bash command uid=1000 login=500"
WHERE = "terminal=pts/3 directory=/tmp"


def shown(format_, event):
    return b"".join(format_.encode([event])).decode()


@pytest.mark.parametrize("format_", [ConversationFormat(), TextFormat()])
def test_text(format_):
    assert shown(format_, command("for a\ndo b\ndone", status=3)) == (
        f"{WHO} {WHERE} status=3 0.001ms\nfor a\ndo b\ndone\n"
    )


def test_what_was_typed_follows_where_it_differs():
    assert shown(ConversationFormat(), command("echo ls", typed="echo !!")).endswith(
        "0.001ms\necho ls\n  typed: echo !!\n"
    )


def test_what_is_not_known_is_left_out():
    event = command(
        "ls",
        origin="script",
        place="/srv/a b.sh",
        login_uid=None,
        terminal="",
        directory=None,
        status=None,
        duration_ns=None,
        ended="left",
        missing="truncated",
    )
    assert form.words(event) == "script uid=1000 place=/srv/a\\x20b.sh status=- -"
    assert form.remarks(event) == " [truncated, left]"


@pytest.mark.parametrize(
    ("number", "words"), [(9, "SIGKILL"), (signal.SIGHUP, "SIGHUP"), (120, "signal 120")]
)
def test_what_killed_a_shell_is_named(number, words):
    assert form.remarks(command(ended="killed", signal=number)) == f" [killed by {words}]"


@pytest.mark.parametrize("format_", [ConversationFormat(terminal=True), TextFormat(terminal=True)])
def test_terminals_are_not_driven(format_):
    assert "\x1b" not in shown(format_, command("echo \x1b[2J", typed="\x1b", comm="\x1b"))


def test_brief():
    assert shown(BriefFormat(), command("a\nb", ended="exited")) == (
        f'{WHO[4:]} {WHERE} status=0 0.001ms "a\\x0ab" [exited]\n'
    )
    long = shown(BriefFormat(), command("x" * 300))
    assert long.endswith(f'"{"x" * 200}..."\n')


def test_json_lines_fit_the_schema():
    schema = json.loads(
        (Path(__file__).parents[3] / "docs/reference/jsonl.schema.json").read_text()
    )
    written = json.loads(shown(JsonLinesFormat(), command("echo é\\xff", typed="!1", signal=9)))
    jsonschema.validate(written, schema)
    assert written["type"] == "command"
    assert (written["text"], written["typed"], written["signal"]) == ("echo é\\xff", "!1", 9)
    plain = json.loads(shown(JsonLinesFormat(), command(login_uid=None, started_ns=0)))
    jsonschema.validate(plain, schema)
    assert (plain["typed"], plain["signal"], plain["login_uid"], plain["started_ns"]) == (
        "ls",
        None,
        None,
        None,
    )
