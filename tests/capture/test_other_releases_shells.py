# SPDX-License-Identifier: Apache-2.0
"""Shells of other releases, in trees of their own: each command once, whole, with its status."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
from commanded import NOBODY, commands, told
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from suites import tree
from terminals import Terminal
from zsh_statements import RAN as RAN_BY_ZSH
from zsh_statements import SCRIPT as SCRIPT_OF_ZSH
from zsh_statements import as_zsh_prints, write_statements

from ecapture.binary.elf import ElfFile
from ecapture.binary.shell_code import find_bash
from ecapture.binary.zsh_code import find_zsh

pytestmark = [CAPTURES, pytest.mark.needs("btf")]
SUITES = ("bullseye", "trixie", "sid")
# x86_64 is the machine whose code a stripped bash is understood by
SEARCHED = platform.machine() == "x86_64"
STATIC, ZSH_STATIC = (("bash-static",), ("zsh-static",)) if SEARCHED else ((), ())
by_code = pytest.mark.skipif(not SEARCHED, reason="only code for x86_64 is looked into")
PLAIN = {"bash": ("--norc", "--noprofile"), "zsh": ("-f", "-i")}


@pytest.fixture(params=SUITES)
def release(request):
    """A release of Debian."""
    return tree(request.param)


def typed_in(name, release, folder, words=(), **how):
    """A shell of the release at a terminal."""
    options = (*PLAIN[name.partition("-")[0]], *words)
    return Terminal(*release.command(folder, name, *options), **how)


def varied():
    """Lines of many kinds, and the status of each."""
    return [
        ("echo one", 0),
        ("false two", 1),
        ("(exit 3)", 3),
        ("! true 'four'", 1),
        ("nosuchcommand5", 127),
        ("f6() { return 6; }; f6", 6),
        ("for i in 1 2; do echo $i seven; done >/dev/null", 0),
        ("echo ä€😀ã eight", 0),
        ("echo " + "x" * 3000 + " nine", 0),
        ("true | (exit 10)", 10),
    ]


@pytest.mark.parametrize("name", ["bash", *STATIC, "zsh", *ZSH_STATIC])
def test_typed_lines_of_two_users(watched, release, name, open_folder):
    """From the first line to the last, of a shell that waited and of one that started later."""
    folder = open_folder
    with typed_in(name, release, folder) as waiting:
        waiting.ready()
        run = watched(probe=name.partition("-")[0])
        with typed_in(name, release, folder, env={"IN_TREE_UID": str(NOBODY)}) as later:
            later.ready()
            for shell in (waiting, later):
                for line, _status in varied():
                    shell.run(line)
                shell.send("exit 3\n")
                assert os.waitstatus_to_exitcode(shell.wait()) == 3
            lines = commands(run, waiting.pid, later.pid)
    for shell, uid in ((waiting, 0), (later, NOBODY)):
        own = [line for line in lines if line["pid"] == shell.pid]
        assert told(own) == [*varied(), ("exit 3", 3)]
        assert [line["ended"] for line in own] == ["returned"] * 10 + ["exited"]
        assert {line["missing"] for line in own} == {""}
        assert {(line["comm"], line["uid"], line["terminal"]) for line in own} == {
            (name, uid, shell.name)
        }
        assert {line["directory"] for line in own} == {"/tmp"}


@pytest.mark.parametrize("name", ["bash", *STATIC, "zsh", *ZSH_STATIC])
def test_history_several_lines_and_jobs(watched, release, name, tmp_path):
    with typed_in(name, release, tmp_path) as shell:
        shell.ready()
        run = watched("--pid", shell.pid, probe=name.partition("-")[0])
        shell.run("echo one two")
        shell.run("echo !!")
        shell.run("for i in 1 2", "do", "  echo $i", "done")
        shell.run("cat <<END", "a line", "", "END")
        shell.jobs()
        shell.send("exec ls /\n")
        shell.wait()
        lines = commands(run)
    assert told(lines) == [
        ("echo one two", 0),
        ("echo echo one two", 0),
        ("for i in 1 2\ndo\n  echo $i\ndone", 0),
        ("cat <<END\na line\n\nEND", 0),
        ("sleep 1000", 130),
        ("cat", 148),
        ("fg", 0),
        ("exec ls /", None),
    ]
    # what was typed is not told of where the line editor has no name
    typed = set() if name == "zsh-static" else {"echo !!"}
    assert {line["typed"] for line in lines if line["typed"] != line["text"]} == typed
    assert lines[-1]["ended"] == "replaced"


SCRIPT = """\
x=1
double() { return $(($1 * 2)); }
double 4
for word in a b; do
    true $word
done
. ./part.sh
exit 7
"""
RAN = [
    ("x=1", 0, "script"),
    ("return $(($1 * 2))", 8, "script"),
    ("double 4", 8, "script"),
    ("true $word", 0, "script"),
    ("true $word", 0, "script"),
    ("for word in a b", 0, "script"),
    ("false sourced", 1, "sourced"),
    (". ./part.sh", 1, "script"),
    ("exit 7", 7, "script"),
]


def carried_out(release, folder, *words):
    """A program of the release, to its end; its process and status."""
    process = subprocess.Popen(
        release.command(folder, *words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    return process.pid, process.wait(DEADLINE)


@pytest.mark.parametrize("name", ["bash", *STATIC])
def test_what_nobody_types(watched, release, name, tmp_path):
    (tmp_path / "part.sh").write_text("false sourced\n")
    (tmp_path / "job.sh").write_text(SCRIPT)
    text = "echo one >/dev/null\nfalse\nexec true"
    with typed_in(name, release, tmp_path) as other:  # so that its file is known
        other.ready()
        run = watched("--non-interactive")
        script, status = carried_out(release, tmp_path, name, "job.sh")
        assert status == 7
        string, status = carried_out(release, tmp_path, name, "-c", text)
        assert status == 0
        lines = commands(run, script, string)
    own = [line for line in lines if line["pid"] == script]
    assert [(line["text"], line["status"], line["origin"]) for line in own] == RAN
    assert {line["place"] for line in own if line["origin"] == "script"} == {"job.sh"}
    own = [line for line in lines if line["pid"] == string]
    assert [(line["text"], line["status"], line["origin"]) for line in own] == [
        ("echo one > /dev/null", 0, "string"),
        ("false", 1, "string"),
        ("exec true", None, "string"),
    ]


WITH_TRAPS = """\
trap 'true in_trap; false' USR1
trap 'true at_exit' EXIT
kill -USR1 $$
trap 'true "debugged $1"' DEBUG
[[ a == b ]]
for i in a; do false $i; done
trap - DEBUG
true at_last
"""
RAN_WITH_TRAPS = [
    ("trap 'true in_trap; false' USR1", 0),
    ("trap 'true at_exit' EXIT", 0),
    ("true in_trap", 0),
    ("false", 1),
    ("kill -USR1 $$", 0),
    ("trap 'true \"debugged $1\"' DEBUG", 0),
    ('true "debugged $1"', 0),
    ("[[ a == b ]]", 1),
    ('true "debugged $1"', 0),
    ('true "debugged $1"', 0),
    ("false $i", 1),
    ("for i in a", 1),
    ('true "debugged $1"', 0),
    ("trap - DEBUG", 0),
    ("true at_last", 0),
    ("true at_exit", 0),
]


@pytest.mark.parametrize("name", ["bash", *STATIC])
def test_traps_show_their_own_commands(watched, release, name, tmp_path):
    """Not those that they interrupt."""
    (tmp_path / "traps.sh").write_text(WITH_TRAPS)
    with typed_in(name, release, tmp_path) as other:
        other.ready()
        run = watched("--non-interactive")
        pid, _status = carried_out(release, tmp_path, name, "traps.sh")
        lines = commands(run, pid)
    assert told(lines) == RAN_WITH_TRAPS
    assert {(line["origin"], line["missing"]) for line in lines} == {("script", "")}


@by_code
def test_typed_and_sourced_are_told_apart(watched, release, tmp_path):
    """By a stripped build, too: prompts, sourced files, subshells of what was typed."""
    (tmp_path / "part.sh").write_text("true one\nif true; then\n  false two\nfi\n")
    with typed_in("bash-static", release, tmp_path) as shell:
        shell.ready()
        run = watched("--pid", shell.pid, "--non-interactive")
        shell.run("cd /tmp")
        shell.run("PROMPT_COMMAND='true prompt'")
        shell.run(". ./part.sh")
        shell.run("(true sub; true shell)")
        shell.run("trap 'true trap' USR1; kill -USR1 $$")
        shell.run("for i in 1 2; do true $i; done")
        lines = commands(run)
    assert [(line["text"], line["status"], line["origin"]) for line in lines] == [
        ("cd /tmp", 0, "typed"),
        ("PROMPT_COMMAND='true prompt'", 0, "typed"),
        ("true one", 0, "sourced"),
        ("true", 0, "sourced"),
        ("false two", 1, "sourced"),
        (". ./part.sh", 1, "typed"),
        ("(true sub; true shell)", 0, "typed"),
        ("trap 'true trap' USR1; kill -USR1 $$", 0, "typed"),
        ("for i in 1 2; do true $i; done", 0, "typed"),
    ]
    assert {line["place"] for line in lines if line["origin"] == "sourced"} == {"./part.sh"}


@pytest.mark.parametrize("name", ["zsh", *ZSH_STATIC])
def test_strings_of_zsh(watched, release, name, tmp_path):
    with typed_in(name, release, tmp_path) as other:
        other.ready()
        run = watched("--non-interactive", probe="zsh")
        text = "echo a >/dev/null\nexit 9"
        pid, status = carried_out(release, tmp_path, name, "-f", "-c", text)
        [line] = of_files(commands(run, pid))
    assert (line["text"], line["status"], line["ended"], line["origin"]) == (
        *(text, status, "exited"),
        "string",
    )
    assert status == 9


def of_files(lines):
    """Those of files that the test wrote, not of those that every zsh reads when it starts."""
    return [line for line in lines if not line["place"].startswith("/etc/")]


@pytest.mark.parametrize("name", ["zsh", *ZSH_STATIC])
def test_scripts_of_zsh(watched, release, name, tmp_path):
    (tmp_path / "part.zsh").write_text("false sourced\n")
    (tmp_path / "job.zsh").write_text(SCRIPT_OF_ZSH)
    with typed_in(name, release, tmp_path) as other:
        other.ready()
        run = watched("--non-interactive", probe="zsh")
        pid, status = carried_out(release, tmp_path, name, "-f", "job.zsh")
        other.run(". ./part.zsh")
        lines = of_files(commands(run, pid, other.pid))
    own = [line for line in lines if line["pid"] == pid]
    assert status == 7
    assert [(line["text"], line["status"], line["origin"]) for line in own] == RAN_BY_ZSH
    assert [line["ended"] for line in own] == ["returned"] * (len(own) - 1) + ["exited"]
    assert {line["place"] for line in own if line["origin"] == "script"} == {"job.zsh"}
    assert [
        (line["text"], line["status"], line["origin"]) for line in lines if line["pid"] != pid
    ] == [("false sourced", 1, "sourced"), (". ./part.zsh", 1, "typed")]


def test_constructs_of_zsh(watched, release, tmp_path):
    write_statements(tmp_path)
    with typed_in("zsh", release, tmp_path) as other:
        other.ready()
        run = watched("--non-interactive", probe="zsh")
        pid, _status = carried_out(release, tmp_path, "zsh", "-f", "all.zsh")
        lines = of_files(commands(run, pid))
    printed = subprocess.run(
        release.command(tmp_path, "zsh", "-f", "printed.zsh"), capture_output=True, check=True
    )
    assert {line["missing"] for line in lines} == {""}
    assert [line["text"] for line in lines] == as_zsh_prints(printed.stdout)


@by_code
def test_code_says_what_names_say(release):
    """Where bash has names, the signs that a stripped build is understood by lead to the same."""
    with ElfFile(release.root / "bin/bash") as elf:
        found = find_bash(elf)
        named = {name: elf.symbol(name).address for name in found.functions}
        variables = {name: elf.symbol(name, variable=True).address for name in found.variables}
    assert (found.reason, found.unattended) == ("", "")
    assert (found.functions, found.variables) == (named, variables)


@by_code
def test_code_says_what_names_say_of_zsh(release):
    with ElfFile(release.root / "bin/zsh") as elf:
        found = find_zsh(elf)
        named = {name: elf.symbol(name).address for name in found.functions}
        variables = {name: elf.symbol(name, variable=True).address for name in found.variables}
    assert (found.reason, found.unattended) == ("", "")
    assert (found.functions, found.variables) == (named, variables)


@by_code
def test_a_static_and_stripped_bash(watched, release, tmp_path):
    """Without history and without a line editor: shown, or said not to be."""
    with typed_in("bash-static", release, tmp_path) as shell:
        shell.ready()
        listed = run_ecapture("targets", "--json", "-p", shell.pid)
        run = watched("--pid", shell.pid)
        shell.run("set +o history")
        shell.run("echo !! hidden")
        shell.run("# only a remark")
        shell.run("echo )")
        shell.run(". /dev/null; false")
        lines = commands(run)
    assert told(lines) == [
        ("set +o history", 0),
        ("echo !! hidden", 0),
        ("# only a remark", 0),
        ("echo )", 2),
        (". /dev/null; false", 1),
    ]
    assert [line["text"] for line in lines if line["ended"] == "not run"] == [
        *("# only a remark", "echo )")
    ]
    [target] = json.loads(listed.stdout)
    assert (target["kind"], target["visible"], target["how"]) == ("bash", True, "fingerprint")
    assert set(target["evidence"]) == {
        *("parse_command", "reader_loop", "pre_process_line", "readline"),
        *("execute_command_internal", "run_debug_trap"),
    }
    with typed_in("bash-static", release, tmp_path, words=("--noediting",)) as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("echo seen")
        shell.run("set +o history")
        shell.run("false hidden")
        lines = commands(run)
    assert [(line["text"], line["missing"], line["status"]) for line in lines] == [
        ("echo seen", "", 0),
        ("set +o history", "", 0),
        ("", "unseen", 1),
    ]


# --- what cannot be seen ---

UNSEEN = [
    ("busybox", ("busybox", "sh"), "sid")  # 1.38
]


@pytest.mark.parametrize(
    ("kind", "words", "suite"), UNSEEN, ids=[f"{kind}-{suite}" for kind, _, suite in UNSEEN]
)
def test_what_cannot_be_seen_is_said(watched, kind, words, suite, tmp_path):
    """By ``targets`` of the process, and by a capture that waits for its commands, once."""
    release = tree(suite)
    with subprocess.Popen(
        release.command(tmp_path, *words), stdin=subprocess.PIPE, env={"HOME": "/tmp"}
    ) as shell:
        wait_until(lambda: Path(f"/proc/{shell.pid}/comm").read_text().strip() == words[0], kind)
        listed = run_ecapture("targets", "--json", "-p", shell.pid)
        [target] = json.loads(listed.stdout)
        run = watched("--pid", shell.pid, probe="sh")
        told_why = [line for line in run.errors.so_far() if "is not shown: " in line]
        assert commands(run) == []
        shell.stdin.close()
        assert shell.wait(DEADLINE) == 0
    assert (target["kind"], target["visible"], target["how"]) == (kind, False, "content")
    assert len(target["reason"]) > 20
    [line] = told_why
    assert line.endswith(f"is not shown: {target['reason']}\n")
    assert target["file"] in line
