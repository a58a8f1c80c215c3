# SPDX-License-Identifier: Apache-2.0
"""What is typed into fish is shown, each command once, whole, with its status: 3.1, 3.6 and 4.

3.1 has names, the others do not: 3.6 is C++, 4.0 and later are Rust.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from pathlib import Path

import pytest
from commanded import NOBODY, commands, numbered, told
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from suites import tree
from terminals import INTERRUPT, Terminal

pytestmark = [
    CAPTURES,
    pytest.mark.needs("btf"),
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="only code for x86_64 is looked into"
    ),
]
SHELL = "fish"
HUNDRED = numbered(
    [
        ("echo {0}", 0),
        ("test {0} = x", 1),
        ("sh -c 'exit {0}'", None),
        ("not test '{0}' = {0}", 1),
        ("nosuchcommand{0}", 127),
        ("for i in 1 2; echo $i {0}; end >/dev/null", 0),
        ("echo ä€😀ã {0}", 0),
        ("echo " + "x" * 900 + "{0}", 0),
        ("function f{0}; return {0}; end; f{0} # a remark", None),
        ("true | sh -c 'exit {0}'", None),
    ],
    100,
)
# The prompt is painted as often as anything changes, the event comes once.
_SETTING = """
function mark_prompt --on-event fish_prompt; printf '<''@1>'; end
function fish_prompt; end
function fish_title; end
set -g fish_greeting
"""


class Fish:
    """A fish of the host, or of a release's tree, where ``folder`` is /tmp."""

    def __init__(self, folder, suite):
        self.folder, self.suite = folder, suite
        # 4.0 itself now and then loses a character of several bytes that is typed so fast
        narrow = suite == "trixie"
        self.hundred = [(t.replace("ä€😀ã", "narrow") if narrow else t, s) for t, s in HUNDRED]
        self._release = None if suite == "host" else tree(suite)
        self.sees_folder_as = str(folder) if suite == "host" else "/tmp"

    def command(self, *words):
        if self._release is None:
            return ("fish", *words)
        return self._release.command(self.folder, "fish", *words)

    def typed_in(self, **how):
        return Terminal(*self.command("-C", _SETTING), folder=self.folder, **how)

    def nobody(self):
        if self._release is None:
            return {"uid": NOBODY}
        return {"env": {"IN_TREE_UID": str(NOBODY)}}


@pytest.fixture(
    params=[
        pytest.param("host", marks=pytest.mark.needs("program:fish")),
        *("bullseye", "trixie", "sid"),
    ]
)
def fish(request, open_folder):
    return Fish(open_folder, request.param)


def test_a_hundred_lines_of_two_users(watched, fish):
    """From the first line to the last, of a shell that waited and of one that started later."""
    with fish.typed_in() as waiting:
        waiting.ready()
        run = watched()
        with fish.typed_in(**fish.nobody()) as later:
            later.ready()
            for line, _status in fish.hundred:
                waiting.run(line)
                later.run(line)
            for shell in (waiting, later):
                shell.send("exit 3\n")
                assert os.waitstatus_to_exitcode(shell.wait()) == 3
            lines = commands(run, waiting.pid, later.pid)
    for shell, uid in ((waiting, 0), (later, NOBODY)):
        own = [line for line in lines if line["pid"] == shell.pid]
        assert told(own) == [*fish.hundred, ("exit 3", 3)]
        last = "returned" if fish.suite == "bullseye" else "exited"
        assert [line["ended"] for line in own] == ["returned"] * len(fish.hundred) + [last]
        assert {(line["comm"], line["uid"], line["terminal"]) for line in own} == {
            ("fish", uid, shell.name)
        }
        assert {line["directory"] for line in own} == {fish.sees_folder_as}
        assert {(line["missing"], line["origin"], line["place"]) for line in own} == {
            ("", "typed", "")
        }
        assert all(line["duration_ns"] > 0 for line in own)


def test_several_lines_a_breakpoint_and_jobs(watched, fish):
    """What is typed at a breakpoint is within the command that came there."""
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("for i in 1 2\necho $i\nend")
        shell.run("# a remark")
        shell.run("")
        shell.run("   ")
        shell.run("function f; breakpoint; sh -c 'exit 6'; end; f")
        shell.run("test inner = x")
        shell.run("exit")
        shell.run("set -g x (sh -c 'exit 4')")
        shell.run("eval 'test a = a'; set -g y 1")
        shell.run("sleep 0 & wait; false")
        shell.send("exec ls /\n")
        shell.wait()
        lines = commands(run)
    assert told(lines) == [
        ("for i in 1 2\necho $i\nend", 0),
        ("# a remark", 0),
        ("test inner = x", 1),
        ("exit", 1),
        ("function f; breakpoint; sh -c 'exit 6'; end; f", 6),
        ("set -g x (sh -c 'exit 4')", 4),
        ("eval 'test a = a'; set -g y 1", 0),
        ("sleep 0 & wait; false", 1),
        ("exec ls /", None),
    ]
    assert [line["ended"] for line in lines] == ["returned"] * 8 + ["replaced"]
    inner, outer = lines[2], lines[4]
    assert outer["started_ns"] < inner["started_ns"]
    assert inner["time_ns"] < outer["time_ns"]


def test_what_is_given_up_has_the_status_that_fish_tells_or_none(watched, fish):
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.send("/bin/sleep 1000\n")
        shell.when_running()
        shell.send(INTERRUPT)
        if fish.suite == "bullseye":  # which sends no event then
            shell.send("\n")
        shell.ready()
        shell.run("test after = x")
        lines = commands(run)
    given_up = None if fish.suite == "sid" else 130
    assert told(lines) == [("/bin/sleep 1000", given_up), ("test after = x", 1)]


def test_a_shell_that_is_killed(watched, fish):
    """With the threads it has beside that which runs commands."""
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("true")
        shell.send("/bin/sleep 1000\n")
        shell.when_running()
        os.kill(shell.pid, signal.SIGKILL)
        shell.wait()
        lines = commands(run)
    assert [(line["text"], line["ended"], line["signal"]) for line in lines] == [
        ("true", "returned", None),
        ("/bin/sleep 1000", "killed", signal.SIGKILL),
    ]


def test_a_command_is_told_before_the_next_is_typed(watched, fish):
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("echo live")
        wait_until(lambda: '"echo live"' in Path(run.path).read_text(), "a command")
        lines = commands(run)
    assert told(lines) == [("echo live", 0)]


def test_what_still_runs(watched, fish):
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.send("/bin/sleep 1000\n")
        shell.when_running()
        lines = commands(run)
    assert [(line["text"], line["ended"], line["status"]) for line in lines] == [
        ("/bin/sleep 1000", "running", None)
    ]


def test_long_texts_are_cut_between_characters_and_counted(watched, fish):
    text = "true " + "ä" * 300
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid, "--truncate", "200")
        shell.run("true " + "x" * 195)
        shell.run(text)
        lines = commands(run)
    assert [(line["text"], line["missing"]) for line in lines] == [
        ("true " + "x" * 195, ""),
        ("true " + "ä" * 97, "truncated"),
    ]
    assert run.summary["truncated"] == 1


def test_a_text_of_several_pieces(watched, fish):
    """A piece ends within a character, as four bytes do not divide it."""
    text = "test " + "-".join(map(str, range(2500))) + " = x"
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run(text)
        lines = commands(run)
    assert [(line["text"], line["missing"], line["status"]) for line in lines] == [(text, "", 1)]


def test_what_nobody_types_is_not_shown_and_that_is_said(watched, fish):
    (fish.folder / "part.fish").write_text("test x = sourced\n")
    with fish.typed_in() as shell:
        shell.ready()
        run = watched("--non-interactive")
        done = subprocess.run(
            fish.command("-c", "test x = string"), cwd=fish.folder, check=False, timeout=DEADLINE
        )
        assert done.returncode == 1
        shell.run("source ./part.fish; echo typed")
        lines = commands(run)
    mine = [line for line in lines if line["text"].split()[-1] in {"string", "sourced", "typed"}]
    assert [(line["pid"], line["text"], line["status"]) for line in mine] == [
        (shell.pid, "source ./part.fish; echo typed", 0)
    ]
    assert "only what is typed is shown" in run.stderr


def test_targets_say_why(fish):
    with fish.typed_in() as shell:
        shell.ready()
        listed = run_ecapture("targets", "--json", "-p", shell.pid)
    [target] = json.loads(listed.stdout)
    named = fish.suite == "bullseye"
    how = "dynsym" if named else "fingerprint"
    assert (target["kind"], target["visible"], target["how"]) == ("fish", True, how)
    functions = set() if named else {"eval.call", "eval.returned", "reader.next"}
    assert set(target["evidence"]) == functions | {"commands that nobody types"}
