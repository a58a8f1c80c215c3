# SPDX-License-Identifier: Apache-2.0
"""What bash is told to do is shown, whole, once, in order, with how it ended."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from commanded import NOBODY, commands, lines_of, numbered, told
from harness import CAPTURES, DEADLINE, run_ecapture
from terminals import MORE, Terminal

from ecapture.binary.loader import loader_cache

pytestmark = [CAPTURES, pytest.mark.needs("btf", "program:bash")]
BASH = ("bash", "--norc", "--noprofile")
HUNDRED = numbered(
    [
        ("echo {0}", 0),
        ("false {0}", 1),
        ("(exit {0})", None),
        ("true | false | true # {0}", 0),
        ("! true '{0}'", 1),
        ("echo 'it''s {0}' \"$HOME\" `pwd` $((1+{0}))", 0),
        ("nosuchcommand{0}", 127),
        ("f{0}() {{ return 4; }}; f{0}", 4),
        ("for i in 1 2; do echo $i {0}; done >/dev/null", 0),
        ("[[ {0} -lt 0 ]] || test -e /nowhere", 1),
        ("cd /; cd - >/dev/null; echo ä€😀 {0}", 0),
        ("echo " + "x" * 3000 + "{0}", 0),
        ("   echo   {0}   ", 0),
    ],
    100,
)


@pytest.fixture
def shell(tmp_path):
    """A bash at a terminal, in a directory of its own."""
    with Terminal(*BASH, folder=tmp_path) as terminal:
        yield terminal


def test_a_hundred_lines(watched, tmp_path):
    run = watched()
    expected = HUNDRED
    with Terminal(*BASH, folder=tmp_path) as shell:
        shell.ready()
        for line, _status in expected:
            shell.run(line)
        shell.send("exit 3\n")
        assert os.waitstatus_to_exitcode(shell.wait()) == 3
        lines = commands(run, shell.pid)
    assert told(lines) == [*expected, ("exit 3", 3)]
    assert [line["ended"] for line in lines] == ["returned"] * 100 + ["exited"]
    assert [line["command"] for line in lines] == list(range(1, 102))
    for line in lines:
        assert (line["origin"], line["missing"], line["typed"]) == ("typed", "", line["text"])
        assert (line["comm"], line["uid"], line["terminal"]) == ("bash", 0, shell.name)
        assert line["directory"] == str(tmp_path)
        assert line["session"] == lines[0]["session"]
        assert line["started_ns"] + line["duration_ns"] == line["time_ns"]


def test_history_several_lines_and_here_documents(watched, shell):
    shell.ready()
    run = watched("--pid", shell.pid)
    shell.run("echo one two")
    shell.run("echo !!")
    shell.run("!echo:s/one/three/")
    shell.run("!nosuchevent")
    shell.run("for i in 1 2", "do", "  echo $i", "done")
    shell.run("cat <<END", "a line", "", "END")
    shell.run("if true", "then echo !$", "fi")
    shell.run("greet() {", "echo hello $1", "}")
    shell.run("greet you && false")
    shell.run("echo a \\", "b")
    shell.run("")
    shell.run("   ")
    shell.run("# only a remark")
    shell.run("echo )")
    lines = commands(run, shell.pid)
    assert told(lines) == [
        ("echo one two", 0),
        ("echo echo one two", 0),
        ("echo echo three two", 0),
        ("!nosuchevent", None),
        ("for i in 1 2\ndo\n  echo $i\ndone", 0),
        ("cat <<END\na line\n\nEND", 0),
        ("if true\nthen echo END\nfi", 0),
        ("greet() {\necho hello $1\n}", 0),
        ("greet you && false", 1),
        ("echo a \\\nb", 0),
        ("# only a remark", 0),
        ("echo )", 2),
    ]
    assert {line["text"]: line["typed"] for line in lines if line["typed"] != line["text"]} == {
        "echo echo one two": "echo !!",
        "echo echo three two": "!echo:s/one/three/",
        "if true\nthen echo END\nfi": "if true\nthen echo !$\nfi",
    }
    assert [line["text"] for line in lines if line["ended"] == "not run"] == [
        "!nosuchevent",
        "# only a remark",
        "echo )",
    ]


def test_interrupts_and_jobs(watched, shell):
    shell.ready()
    run = watched("--pid", shell.pid)
    shell.send("never entered")
    shell.interrupt(b"never entered")
    shell.ready()
    shell.more("while true")
    shell.interrupt(MORE)
    shell.ready()
    shell.jobs()
    shell.run("sleep 0 & wait $!")
    shell.run("(exit 9) & wait $!")
    lines = commands(run, shell.pid)
    assert [(line["text"], line["status"], line["ended"]) for line in lines] == [
        ("while true", 130, "abandoned"),
        ("sleep 1000", 130, "returned"),
        ("cat", 148, "returned"),
        ("fg", 0, "returned"),
        ("sleep 0 & wait $!", 0, "returned"),
        ("(exit 9) & wait $!", 9, "returned"),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exec true", (None, "replaced", None)),
        ("exit 200", (200, "exited", None)),
        ("false; exit", (1, "exited", None)),
        ("kill -KILL $$", (None, "killed", signal.SIGKILL)),
        ("exec /nonexistent/program", (127, "returned", None)),
    ],
)
def test_the_last_command(watched, shell, line, expected):
    shell.ready()
    run = watched("--pid", shell.pid)
    shell.run("cd /tmp")
    shell.send(f"{line}\n")
    if expected[1] == "returned":
        shell.ready()
    else:
        shell.wait()
    lines = commands(run)
    assert told(lines)[0] == ("cd /tmp", 0)
    assert [(found["text"], found["directory"]) for found in lines[1:]] == [(line, "/tmp")]
    assert tuple(lines[1][name] for name in ("status", "ended", "signal")) == expected


def test_what_still_runs_when_the_capture_ends(watched, shell):
    shell.ready()
    run = watched("--pid", shell.pid)
    shell.send("sleep 1000\n")
    shell.when_running()
    (line,) = commands(run)
    assert (line["text"], line["status"], line["ended"]) == ("sleep 1000", None, "running")


def test_without_history(watched, shell):
    """Who wants to leave no trace turns history off; what readline returns is seen all the same."""
    shell.ready()
    run = watched("--pid", shell.pid)
    shell.run("set +o history")
    shell.run("echo !! hidden")
    shell.run("false")
    assert told(commands(run)) == [("set +o history", 0), ("echo !! hidden", 0), ("false", 1)]


@pytest.mark.parametrize(
    "without", ["uprobe_multi", "uprobe_multi,attach_cookie,bpf_loop", "btf"], ids=str
)
def test_on_kernels_that_lack_much(watched, shell, tmp_path, without):
    shell.ready()
    run = watched("--pid", shell.pid, env={"ECAPTURE_WITHOUT": without})
    shell.run("for i in 1 2", "do (exit $i)", "done")
    shell.run("echo !!")
    lines = commands(run)
    assert told(lines)[0] == ("for i in 1 2\ndo (exit $i)\ndone", 2)
    assert [line["typed"] for line in lines[1:]] == ["echo !!"]
    known = "btf" not in without
    assert lines[0]["directory"] == (str(tmp_path) if known else None)
    assert lines[0]["terminal"] == (shell.name if known else "")


def test_where_no_text_can_be_seen_that_is_said(watched, tmp_path):
    with Terminal(*BASH, "--noediting", folder=tmp_path) as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("echo seen")
        shell.run("set +o history")
        shell.run("false hidden")
        shell.run("")
        lines = commands(run)
    assert [(line["text"], line["missing"], line["status"]) for line in lines] == [
        ("echo seen", "", 0),
        ("set +o history", "", 0),
        ("", "unseen", 1),
    ]


def test_two_users_at_once(watched, open_folder):
    run = watched()
    with (
        Terminal(*BASH, folder=open_folder) as one,
        Terminal(*BASH, folder=open_folder, uid=NOBODY) as other,
    ):
        shells = (one.ready(), other.ready())

        def type_all(shell):
            for number in range(30):
                shell.run(f"(exit {number}) # {shell.name}")

        threads = [threading.Thread(target=type_all, args=(shell,)) for shell in shells]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4 * DEADLINE)
        lines = commands(run, one.pid, other.pid)
    for shell, uid in ((one, 0), (other, NOBODY)):
        own = [line for line in lines if line["pid"] == shell.pid]
        assert told(own) == [(f"(exit {n}) # {shell.name}", n) for n in range(30)]
        assert {(line["uid"], line["terminal"]) for line in own} == {(uid, shell.name)}


def test_the_user_who_logged_in(watched, shell):
    shell.ready()
    shell.run("echo 4242 >/proc/self/loginuid")
    kept = int(Path(f"/proc/{shell.pid}/loginuid").read_text())
    run = watched("--pid", shell.pid)
    shell.run("true")
    (line,) = commands(run)
    assert line["login_uid"] == (None if kept == 0xFFFFFFFF else kept)


def test_long_commands(watched, shell):
    shell.ready()
    run = watched("--pid", shell.pid)
    text = "0123456789" * 300
    document = [f"{number:02d}{text}" for number in range(25)]
    shell.run("cat >/dev/null <<END", *document[:20], "END")
    shell.run("cat >/dev/null <<END", *document, "END")
    whole, cut = commands(run)
    assert whole["text"] == "\n".join(["cat >/dev/null <<END", *document[:20], "END"])
    assert whole["missing"] == ""
    assert len(whole["text"]) > 60_000
    full = "\n".join(["cat >/dev/null <<END", *document, "END"])
    assert (cut["missing"], cut["status"]) == ("truncated", 0)
    assert full.startswith(cut["text"].rstrip("\n"))
    assert 65_000 < len(cut["text"]) <= 65_536 + 27


def test_a_limit_of_ones_own(watched, shell):
    shell.ready()
    run = watched("--pid", shell.pid, "--truncate", "8")
    shell.run("echo 123456")
    shell.run("true")
    lines = commands(run)
    assert [(line["text"], line["missing"]) for line in lines] == [
        ("echo 123", "truncated"),
        ("true", ""),
    ]
    assert run.summary["truncated"] == 1


SCRIPT = """\
x=1
double() { return $(($1 * 2)); }
double 4
for word in a b; do
    true $word
done
echo x | cat >/dev/null
. ./part.sh
cat <<X >/dev/null
kept $x
X
(exit 5)
exit 7
"""
RAN = [
    ("x=1", 0, "script"),
    ("return $(($1 * 2))", 8, "script"),
    ("double 4", 8, "script"),
    ("true $word", 0, "script"),
    ("true $word", 0, "script"),
    ("for word in a b", 0, "script"),
    ("echo x", None, "script"),
    ("cat > /dev/null", 0, "script"),
    ("false sourced", 1, "sourced"),
    (". ./part.sh", 1, "script"),
    ("cat <<X > /dev/null\nkept $x\nX", 0, "script"),
    ("exit 5", 5, "script"),
    ("exit 7", 7, "script"),
]


def brief(lines):
    return [(line["text"], line["status"], line["origin"]) for line in lines]


@pytest.fixture
def script(tmp_path):
    (tmp_path / "part.sh").write_text("false sourced\n")
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    return path


def test_what_nobody_types(watched, script):
    run = watched("--non-interactive", command=("bash", script), cwd=script.parent)
    run.finish(None, status=7)
    lines = lines_of(run)
    assert brief(lines) == RAN
    assert {line["place"] for line in lines if line["origin"] == "script"} == {str(script)}
    assert {line["place"] for line in lines if line["origin"] == "sourced"} == {"./part.sh"}
    assert {line["ended"] for line in lines if line["status"] is None} == {"left"}


def test_what_ends_deep_within_functions_ends_with_its_shell(watched, tmp_path):
    """Each function, its body and what that is made of is a command that the shell is within."""
    depth = 12
    functions = [f"f{n}() {{ if true; then f{n + 1}; fi; }}" for n in range(depth)]
    path = tmp_path / "deep.sh"
    path.write_text("\n".join([*functions, f"f{depth}() {{ exit 3; }}", "f0", ""]))
    run = watched("--non-interactive", command=("bash", path), cwd=tmp_path)
    run.finish(None, status=3)
    within = [line for line in lines_of(run) if line["text"] != "true"]
    assert told(within) == [("exit 3", 3), *((f"f{n}", 3) for n in reversed(range(depth + 1)))]
    assert {line["ended"] for line in within} == {"exited"}


@pytest.mark.parametrize("how", ["string", "input"])
def test_strings_and_standard_input(watched, tmp_path, how):
    text = "echo one >/dev/null\nfalse\nexec true"
    (tmp_path / "input").write_text(text)
    run = watched(
        "--non-interactive",
        command=("bash", "-c", text) if how == "string" else ("sh", "-c", "exec bash <input"),
        cwd=tmp_path,
    )
    run.finish(None)
    lines = lines_of(run)
    assert brief([line for line in lines if line["comm"] == "bash"]) == [
        ("echo one > /dev/null", 0, how),
        ("false", 1, how),
        ("exec true", None, how),
    ]
    assert lines[-1]["ended"] == "replaced"


def test_typed_and_sourced_are_told_apart(watched, shell, tmp_path):
    (tmp_path / "part.sh").write_text("true one\nif true; then\n  false two\nfi\n")
    shell.ready()
    run = watched("--pid", shell.pid, "--non-interactive")
    shell.run("PROMPT_COMMAND='true prompt'")
    shell.run(". ./part.sh")
    shell.run("for i in 1 2; do true $i; done")
    assert brief(commands(run)) == [
        ("PROMPT_COMMAND='true prompt'", 0, "typed"),
        ("true one", 0, "sourced"),
        ("true", 0, "sourced"),
        ("false two", 1, "sourced"),
        (". ./part.sh", 1, "typed"),
        ("for i in 1 2; do true $i; done", 0, "typed"),
    ]


def test_without_the_option_only_what_is_typed_is_shown(watched, script):
    run = watched(command=("bash", script), cwd=script.parent)
    run.finish(None, status=7)
    assert Path(run.path).read_text() == ""


def test_what_is_shown_can_be_chosen_and_masked(watched, shell):
    shell.ready()
    runs = [
        watched("--pid", shell.pid, "--errnumber", "3"),
        watched("--pid", shell.pid, "--filter", "command ~ TOKEN or exit_status == 1"),
        watched("--pid", shell.pid, "--redact"),
        watched("--pid", shell.pid, mode="record"),
    ]
    shell.run("false")
    shell.run("(exit 3)")
    shell.run("TOKEN=geheim true")
    assert told(commands(runs[0])) == [("(exit 3)", 3)]
    assert told(commands(runs[1])) == [("false", 1), ("TOKEN=geheim true", 0)]
    masked = [("false", 1), ("(exit 3)", 3), ("TOKEN=REDACTED true", 0)]
    assert told(commands(runs[2])) == masked
    runs[3].finish()
    replayed = run_ecapture("replay", runs[3].path, "-m", "jsonl", "--redact")
    assert replayed.returncode == 0
    assert told(map(json.loads, replayed.stdout.splitlines())) == masked


def test_text(watched, shell, tmp_path):
    shell.ready()
    run = watched("--pid", shell.pid, mode="text", raw=False)
    shell.run("echo one")
    shell.run("echo !$")
    run.finish()
    lines = Path(run.path).read_text().splitlines()
    who = f"pid={shell.pid} comm=bash command uid=0 "
    assert [who in lines[0], who in lines[2]] == [True, True]
    assert f"terminal={shell.name} directory={tmp_path} status=0 " in lines[0]
    assert lines[1::2] == ["echo one", "echo one"]
    assert lines[4:] == ["  typed: echo !$"]


@pytest.mark.parametrize("named", [("--bash",), ("--readlineso",)])
def test_files_named_by_hand(watched, shell, named):
    path = Path("/bin/bash").resolve()
    if named == ("--readlineso",):
        path = loader_cache()["libreadline.so.8"][0]
    shell.ready()
    run = watched(*named, path, "--pid", shell.pid)
    shell.run("echo by hand")
    assert told(commands(run)) == [("echo by hand", 0)]
