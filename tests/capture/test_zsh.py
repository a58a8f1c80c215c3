# SPDX-License-Identifier: Apache-2.0
"""What zsh is told to do is shown as of bash, with its line editor in a module or without one."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from commanded import NOBODY, commands, lines_of, numbered, told
from harness import CAPTURES, DEADLINE
from terminals import Terminal
from zsh_statements import RAN, SCRIPT, as_zsh_prints, write_statements

SHELL = "zsh"
pytestmark = [CAPTURES, pytest.mark.needs("btf", "program:zsh")]
EDITORS = {"zle": ("zsh", "-f", "-i"), "none": ("zsh", "-f", "-i", "+Z")}
FIFTY = numbered(
    [
        ("echo {0}", 0),
        ("false {0}", 1),
        ("(exit {0})", None),
        ("! true '{0}'", 1),
        ("nosuchcommand{0}", 127),
        ("for i in 1 2; do echo $i {0}; done >/dev/null", 0),
        ("echo ä€😀ã {0}", 0),
        ("echo " + "x" * 2000 + "{0}", 0),
    ],
    50,
)


@pytest.fixture(params=EDITORS)
def shell(request, tmp_path):
    """A zsh at a terminal, in a directory of its own."""
    with Terminal(*EDITORS[request.param], folder=tmp_path) as terminal:
        yield terminal


def test_fifty_lines(watched, tmp_path, shell):
    run = watched()
    expected = FIFTY
    shell.ready()
    for line, _status in expected:
        shell.run(line)
    shell.send("exit 3\n")
    assert os.waitstatus_to_exitcode(shell.wait()) == 3
    lines = commands(run, shell.pid)
    assert told(lines) == [*expected, ("exit 3", 3)]
    assert lines[-1]["ended"] == "exited"
    for line in lines:
        assert (line["origin"], line["missing"], line["typed"]) == ("typed", "", line["text"])
        assert (line["comm"], line["uid"], line["terminal"]) == ("zsh", 0, shell.name)
        assert line["directory"] == str(tmp_path)


def test_history_several_lines_and_here_documents(watched, tmp_path):
    with Terminal(*EDITORS["zle"], folder=tmp_path) as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("echo one two")
        shell.run("echo !!")
        shell.run("!nosuchevent")
        shell.run("for i in 1 2", "do", "  echo $i", "done")
        shell.run("cat <<END", "a line", "", "END")
        shell.run("")
        shell.run("echo )")
        lines = commands(run)
    assert told(lines)[:5] == [
        ("echo one two", 0),
        ("echo echo one two", 0),
        ("!nosuchevent", lines[2]["status"]),
        ("for i in 1 2\ndo\n  echo $i\ndone", 0),
        ("cat <<END\na line\n\nEND", 0),
    ]
    assert [line["text"] for line in lines[5:]] == ["echo )"]
    assert lines[1]["typed"] == "echo !!"
    assert [line["ended"] for line in lines] == [
        *("returned", "returned", "not run", "returned", "returned", "not run")
    ]


def test_interrupts_and_jobs(watched, shell):
    shell.ready()
    run = watched("--pid", shell.pid)
    shell.jobs()
    assert told(commands(run)) == [("sleep 1000", 130), ("cat", 148), ("fg", 0)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exec /bin/true", (None, "replaced", None)),
        ("kill -KILL $$", (None, "killed", signal.SIGKILL)),
    ],
)
def test_the_last_command(watched, tmp_path, line, expected):
    with Terminal(*EDITORS["zle"], folder=tmp_path) as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.send(f"{line}\n")
        shell.wait()
        (found,) = commands(run)
    assert (found["text"], found["directory"]) == (line, str(tmp_path))
    assert tuple(found[name] for name in ("status", "ended", "signal")) == expected


@pytest.mark.parametrize(
    ("text", "status", "ended"),
    [
        ("echo a >/dev/null\nfalse", 1, "returned"),
        ("exit 9", 9, "exited"),
        ("ls /", None, "replaced"),
    ],
)
def test_strings(watched, text, status, ended):
    run = watched("--non-interactive", command=("zsh", "-f", "-c", text))
    run.finish(None, status=status or 0)
    (line,) = of_files(lines_of(run))
    assert (line["text"], line["status"], line["ended"], line["origin"]) == (
        text,
        status,
        ended,
        "string",
    )


def of_files(lines):
    """Those of files that the test wrote, not of those that every zsh reads when it starts."""
    return [line for line in lines if not line["place"].startswith("/etc/")]


def brief(lines):
    return [(line["text"], line["status"], line["origin"]) for line in of_files(lines)]


@pytest.fixture
def script(open_folder):
    folder = open_folder / "zsh"
    folder.mkdir(exist_ok=True)
    (folder / "part.zsh").write_text("false sourced\n")
    path = folder / "job.zsh"
    path.write_text(SCRIPT)
    return path


def test_scripts(watched, script):
    run = watched("--non-interactive", command=("zsh", "-f", script), cwd=script.parent)
    run.finish(None, status=7)
    lines = of_files(lines_of(run))
    assert brief(lines) == RAN
    assert [line["ended"] for line in lines] == ["returned"] * (len(RAN) - 1) + ["exited"]
    assert {line["place"] for line in lines if line["origin"] == "script"} == {str(script)}
    assert {line["place"] for line in lines if line["origin"] == "sourced"} == {"./part.zsh"}
    assert {line["directory"] for line in lines} == {str(script.parent)}
    assert {line["missing"] for line in lines} == {""}
    for line in lines:
        assert line["started_ns"] + line["duration_ns"] == line["time_ns"]


def test_standard_input(watched, tmp_path):
    (tmp_path / "input").write_text("echo one >/dev/null\nfalse\nexec /bin/true")
    run = watched("--non-interactive", command=("sh", "-c", "exec zsh -f <input"), cwd=tmp_path)
    run.finish(None)
    lines = of_files(lines_of(run))
    assert brief(lines) == [
        ("echo one > /dev/null", 0, "input"),
        ("false", 1, "input"),
        ("exec /bin/true", None, "input"),
    ]
    assert lines[-1]["ended"] == "replaced"


def test_typed_and_sourced_are_told_apart(watched, shell, tmp_path):
    (tmp_path / "part.zsh").write_text("true one\nif true; then\n  false two\nfi\nreturn 4\n")
    shell.ready()
    run = watched("--pid", shell.pid, "--non-interactive")
    shell.run("precmd() { true prompt; }")
    shell.run(". ./part.zsh")
    shell.run("zcompile part.zsh && . ./part.zsh")
    shell.run("(true sub; true shell)")
    shell.run("eval 'true evaluated'")
    shell.run("for i in 1 2; do true $i; done")
    lines = commands(run)
    sourced = [
        ("true one", 0, "sourced"),
        ("if true\nthen\n\tfalse two\nfi", 1, "sourced"),
        ("return 4", 4, "sourced"),
    ]
    compiled = [("\n".join(text for text, *_ in sourced), 4, "sourced")]  # read as one
    assert brief(lines) == [
        ("precmd() { true prompt; }", 0, "typed"),
        *sourced,
        (". ./part.zsh", 4, "typed"),
        *compiled,
        ("zcompile part.zsh && . ./part.zsh", 4, "typed"),
        ("(true sub; true shell)", 0, "typed"),
        ("eval 'true evaluated'", 0, "typed"),
        ("for i in 1 2; do true $i; done", 0, "typed"),
    ]
    assert {line["place"] for line in lines if line["origin"] == "sourced"} == {"./part.zsh"}


def test_every_construct_is_printed_as_zsh_prints_it(watched, tmp_path):
    write_statements(tmp_path)
    run = watched("--non-interactive", command=("zsh", "-f", "all.zsh"), cwd=tmp_path)
    run.finish(None)
    lines = of_files(lines_of(run))
    assert {line["missing"] for line in lines} == {""}
    printed = subprocess.run(
        ("zsh", "-f", "printed.zsh"), cwd=tmp_path, capture_output=True, check=True
    )
    assert [line["text"] for line in lines] == as_zsh_prints(printed.stdout)


def test_two_users_at_once(watched, script):
    run = watched("--non-interactive")
    for uid in (0, NOBODY):
        (script.parent / str(uid)).mkdir(exist_ok=True)
        os.chown(script.parent / str(uid), uid, uid)
    shells = {
        uid: subprocess.Popen(
            ("zsh", "-f", script),
            cwd=script.parent,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "TMPPREFIX": str(script.parent / str(uid) / "zsh")},
            user=uid,
        )
        for uid in (0, NOBODY)
    }
    assert [shell.wait(DEADLINE) for shell in shells.values()] == [7, 7]
    lines = commands(run)
    for uid, shell in shells.items():
        own = [line for line in lines if line["pid"] == shell.pid]
        assert brief(own) == RAN
        assert {line["uid"] for line in own} == {uid}


def test_long_texts_are_cut_and_that_is_said(watched, tmp_path):
    path = tmp_path / "long.zsh"
    whole, longer = "x" * 60_000, "y" * 70_000
    path.write_text(f"true {whole}\ntrue {longer}\ntrue\n")
    run = watched("--non-interactive", command=("zsh", "-f", path))
    run.finish(None)
    lines = of_files(lines_of(run))
    assert [(line["text"], line["missing"]) for line in lines] == [
        (f"true {whole}", ""),
        (f"true {longer}"[:65536], "truncated"),
        ("true", ""),
    ]
    assert run.summary["truncated"] == 1
    run = watched("--non-interactive", "--truncate", "7", command=("zsh", "-f", path))
    run.finish(None)
    lines = of_files(lines_of(run))
    assert [(line["text"], line["missing"]) for line in lines] == [
        ("true xx", "truncated"),
        ("true yy", "truncated"),
        ("true", ""),
    ]


def test_without_the_option_only_what_is_typed_is_shown(watched, script):
    run = watched(command=("zsh", "-f", script), cwd=script.parent)
    run.finish(None, status=7)
    assert Path(run.path).read_text() == ""
