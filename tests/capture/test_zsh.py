# SPDX-License-Identifier: Apache-2.0
"""What zsh is told to do is shown as of bash, with its line editor in a module or without one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from harness import CAPTURES, Captured
from terminals import END, INTERRUPT, SUSPEND, Terminal

pytestmark = [CAPTURES, pytest.mark.needs("btf", "program:zsh")]
EDITORS = {"zle": ("zsh", "-f", "-i"), "none": ("zsh", "-f", "-i", "+Z")}


@pytest.fixture(params=EDITORS)
def shell(request, tmp_path):
    """A zsh at a terminal, in a directory of its own."""
    with Terminal(*EDITORS[request.param], folder=tmp_path) as terminal:
        yield terminal


@pytest.fixture
def watched(tmp_path):
    """``watched("--pid", "1")`` captures commands of zsh as JSON lines."""
    running = []

    def start(*options, **how):
        running.append(Captured(tmp_path, *options, probe="zsh", mode="jsonl", **how))
        return running[-1]

    yield start
    for run in running:
        run.__exit__()


def commands(run, *pids):
    """The lines of these processes, once the capture has ended."""
    run.finish()
    assert run.summary["lost"] == 0, run.stderr
    lines = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    return [line for line in lines if not pids or line["pid"] in pids]


def told(lines):
    return [(line["text"], line["status"]) for line in lines]


def fifty():
    """Fifty lines and the status of each."""
    varied = [
        ("echo {0}", 0),
        ("false {0}", 1),
        ("(exit {0})", None),
        ("! true '{0}'", 1),
        ("nosuchcommand{0}", 127),
        ("for i in 1 2; do echo $i {0}; done >/dev/null", 0),
        ("echo ä€😀ã {0}", 0),
        ("echo " + "x" * 2000 + "{0}", 0),
    ]
    for number in range(50):
        text, status = varied[number % len(varied)]
        yield text.format(number), number if status is None else status


def test_fifty_lines(watched, tmp_path, shell):
    run = watched()
    expected = list(fifty())
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
    shell.send("sleep 1000\n")
    shell.when_running()
    shell.send(INTERRUPT)
    shell.ready()
    shell.send("cat\n")
    shell.when_running()
    shell.send(SUSPEND)
    shell.ready()
    shell.send("fg\n")
    shell.when_running()
    shell.send(END)
    shell.ready()
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
    (line,) = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    assert (line["text"], line["status"], line["ended"], line["origin"]) == (
        text,
        status,
        ended,
        "string",
    )
