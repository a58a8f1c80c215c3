# SPDX-License-Identifier: Apache-2.0
"""What sh is told to do is shown, each command once, whole, with its status: dash and busybox.

All builds are stripped: what is hooked was found by what it does.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess

import pytest
from commanded import NOBODY, commands, numbered, told, with_origin
from harness import CAPTURES, DEADLINE, run_ecapture
from suites import tree
from terminals import Terminal

SEARCHED = platform.machine() == "x86_64"
SHELL = "sh"
pytestmark = [
    CAPTURES,
    pytest.mark.needs("btf"),
    pytest.mark.skipif(not SEARCHED, reason="only code for x86_64 is looked into"),
]
HUNDRED = numbered(
    [
        ("echo {0}", 0),
        ("false {0}", 1),
        ("(exit {0})", None),
        ("! true '{0}'", 1),
        ("nosuchcommand{0}", 127),
        ("for i in 1 2; do echo $i {0}; done >/dev/null", 0),
        ("echo ä€😀ã {0}", 0),
        ("echo " + "x" * 900 + "{0}", 0),
        ("f{0}() {{ return {0}; }}; f{0} # a remark", None),
        ("true | (exit {0})", None),
    ],
    100,
)


class Sh:
    """A shell of the host, or of a release's tree, where ``folder`` is /tmp."""

    # Programs are named by their place, since busybox would run its own in its place.

    def __init__(self, words, folder, release=None):
        self.words, self.folder, self._release = words, folder, release
        self.comm = words[0]
        # busybox 1.30 reads the same line again after Ctrl-C
        self.abandons = self.comm != "busybox" or getattr(release, "suite", "") != "bullseye"
        self.sees_folder_as = "/tmp" if release else str(folder)

    def command(self, *words):
        if self._release is None:
            return (*self.words, *map(str, words))
        return self._release.command(self.folder, *self.words, *words)

    def typed_in(self, *words, **how):
        return Terminal(*self.command(*words), folder=self.folder, **how)

    def run(self, *words, **how):
        """To its end; its process and status."""
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | how
        with subprocess.Popen(self.command(*words), cwd=self.folder, **how) as process:
            return process.pid, process.wait(DEADLINE)


WORDS = {"dash": ("dash",), "busybox": ("busybox", "sh")}
BUILDS = [f"{name}-{suite}" for name in WORDS for suite in ("bullseye", "trixie")]
HOSTS = [pytest.param(f"{n}-host", marks=pytest.mark.needs(f"program:{n}")) for n in WORDS]


@pytest.fixture(params=[*HOSTS, *BUILDS, "dash-sid"])
def sh(request, open_folder):
    name, where = request.param.split("-")
    if where != "host":
        return Sh(WORDS[name], open_folder, tree(where))
    return Sh(WORDS[name], open_folder)


def test_a_hundred_lines_of_two_users(watched, sh):
    """From the first line to the last, of a shell that waited and of one that started later."""
    expected = HUNDRED
    who = {} if sh.sees_folder_as != "/tmp" else {"env": {"IN_TREE_UID": str(NOBODY)}}
    with sh.typed_in() as waiting:
        waiting.ready()
        run = watched()
        with sh.typed_in(**(who or {"uid": NOBODY})) as later:
            later.ready()
            for line, _status in expected:
                waiting.run(line)
                later.run(line)
            for shell in (waiting, later):
                shell.send("exit 3\n")
                assert os.waitstatus_to_exitcode(shell.wait()) == 3
            lines = commands(run, waiting.pid, later.pid)
    for shell, uid in ((waiting, 0), (later, NOBODY)):
        own = [line for line in lines if line["pid"] == shell.pid]
        assert told(own) == [*expected, ("exit 3", 3)]
        assert [line["ended"] for line in own] == ["returned"] * len(expected) + ["exited"]
        assert {(line["comm"], line["uid"], line["terminal"]) for line in own} == {
            (sh.comm, uid, shell.name)
        }
        assert {line["directory"] for line in own} == {sh.sees_folder_as}
        assert {(line["missing"], line["origin"], line["place"]) for line in own} == {
            ("", "typed", "")
        }
        assert all(line["duration_ns"] > 0 for line in own[1:])


def test_several_lines_and_jobs(watched, sh):
    with sh.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid)
        shell.run("for i in 1 2", "do", "  echo $i", "done")
        shell.run("cat <<END", "a line", "", "END")
        shell.run("alias both='echo 1; echo 2'")
        shell.run("both \\", "  more")
        shell.run("# a remark")
        shell.run("")
        shell.run("echo )")
        shell.jobs("/bin/sleep", "/bin/cat")
        shell.run("sleep 0 & wait; false")
        if sh.abandons:
            shell.more("if true")
            shell.interrupt(b"<@2>")
            shell.ready()
        shell.send("given up")
        shell.interrupt(b"given up")
        shell.ready()
        shell.run("eval 'true eval'; trap 'true trap' USR1; kill -USR1 $$")
        shell.run("eval 'false eval\nfalse'")
        shell.send("exec /bin/ls /\n")
        shell.wait()
        lines = commands(run)
    assert told(lines) == [
        ("for i in 1 2\ndo\n  echo $i\ndone", 0),
        ("cat <<END\na line\n\nEND", 0),
        ("alias both='echo 1; echo 2'", 0),
        ("both \\\n  more", 0),
        ("# a remark", 0),
        ("echo )", 2),
        ("/bin/sleep 1000", 130),
        ("/bin/cat", 148),
        ("fg", 0),
        ("sleep 0 & wait; false", 1),
        *([("if true", 130)] if sh.abandons else []),
        ("eval 'true eval'; trap 'true trap' USR1; kill -USR1 $$", 0),
        ("eval 'false eval\nfalse'", 1),
        ("exec /bin/ls /", None),
    ]
    ends = {line["text"]: line["ended"] for line in lines if line["ended"] != "returned"}
    assert ends == {
        "# a remark": "not run",
        "echo )": "not run",
        **({"if true": "abandoned"} if sh.abandons else {}),
        "exec /bin/ls /": "replaced",
    }


def test_a_shell_that_is_killed(watched, sh):
    with sh.typed_in() as shell:
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


SCRIPT = """\
#!/bin/sh
x=1
double() { return $(($1 * 2)); }
double 4
# for nobody
for word in a b; do
    true $word
done

. ./part.sh
( . ./part.sh; true )
echo $(. ./part.sh)
cat <<END >/dev/null
$x
END
eval 'true
false'
trap 'true trap' USR1; kill -USR1 $$
exit 7
"""
PART = [("false sourced", 1, "sourced"), ("return 4", 4, "sourced")]
RAN = [
    ("x=1", 0, "script"),
    ("double() { return $(($1 * 2)); }", 0, "script"),
    ("double 4", 8, "script"),
    ("for word in a b; do\n    true $word\ndone", 0, "script"),
    *PART,
    (". ./part.sh", 4, "script"),
    *PART,
    ("( . ./part.sh; true )", 0, "script"),
    *PART,
    ("echo $(. ./part.sh)", 0, "script"),
    ("cat <<END >/dev/null\n$x\nEND", 0, "script"),
    ("eval 'true\nfalse'", 1, "script"),
    ("trap 'true trap' USR1; kill -USR1 $$", 0, "script"),
    ("exit 7", 7, "script"),
]


def write_script(folder):
    (folder / "part.sh").write_text("# read on the way\nfalse sourced\nreturn 4\nnever\n")
    (folder / "job.sh").write_text(SCRIPT)


def children_of(lines, pid):
    # Those of subshells, which are other processes, in the order in which all ended.
    return [line for line in lines if line["pid"] == pid or line["text"] in {p[0] for p in PART}]


def test_scripts(watched, sh):
    write_script(sh.folder)
    with sh.typed_in() as other:  # so that its file is known
        other.ready()
        run = watched("--non-interactive")
        pid, status = sh.run("job.sh")
        lines = children_of(commands(run), pid)
    assert status == 7
    assert with_origin(lines) == RAN
    assert [line["ended"] for line in lines] == ["returned"] * (len(RAN) - 1) + ["exited"]
    assert {(line["place"], line["origin"]) for line in lines} == {
        ("job.sh", "script"),
        ("./part.sh", "sourced"),
    }
    assert {line["missing"] for line in lines} == {""}
    assert len({line["pid"] for line in lines}) == 3


def test_typed_and_sourced_are_told_apart(watched, sh):
    write_script(sh.folder)
    with sh.typed_in() as shell:
        shell.ready()
        run = watched("--pid", shell.pid, "--non-interactive")
        shell.run("true one")
        shell.run(". ./part.sh; false later")
        shell.run("(true sub; true shell)")
        shell.run("eval '. ./part.sh'")
        lines = commands(run)
    assert with_origin(lines) == [
        ("true one", 0, "typed"),
        *PART,
        (". ./part.sh; false later", 1, "typed"),
        ("(true sub; true shell)", 0, "typed"),
        *PART,
        ("eval '. ./part.sh'", 4, "typed"),
    ]


def test_strings_and_input(watched, sh):
    with sh.typed_in() as other:
        other.ready()
        run = watched("--non-interactive")
        text = "echo a >/dev/null\neval false\nexit 9"
        string, status = sh.run("-c", text)
        assert status == 9
        last, status = sh.run("-c", "true; exec /bin/ls /")
        assert status == 0
        with subprocess.Popen(
            sh.command("-s", "x"), stdin=subprocess.PIPE, cwd=sh.folder
        ) as process:
            process.communicate(b"false $1\nif true; then\n (exit 5)\nfi\ntrue )\ntrue", DEADLINE)
        lines = commands(run, string, last, process.pid)
    assert [(line["text"], line["status"], line["origin"], line["ended"]) for line in lines] == [
        (text, 9, "string", "exited"),
        ("true; exec /bin/ls /", None, "string", "replaced"),
        ("false $1", 1, "input", "returned"),
        ("if true; then\n (exit 5)\nfi", 5, "input", "returned"),
        ("true )", 2, "input", "not run"),
    ]


@pytest.mark.needs("program:busybox")
def test_other_programs_of_busybox_are_not_shown(watched, open_folder):
    with Terminal("busybox", "sh", folder=open_folder) as other:
        other.ready()  # so that the file is hooked before the others begin
        run = watched("--non-interactive")
        for words in (("ls",), ("sed", "s/a/b/"), ("env", "busybox", "true")):
            assert Sh(("busybox", *words), open_folder).run()[1] == 0
        shell, status = Sh(WORDS["busybox"], open_folder).run("-c", "busybox true; exit 3")
        assert status == 3
        lines = [line for line in commands(run) if line["comm"] == "busybox"]
    assert [(line["pid"], *found) for line, found in zip(lines, told(lines), strict=True)] == [
        (shell, "busybox true; exit 3", 3)
    ]


def test_what_nobody_types_is_left_out(watched, sh):
    """Unless it is asked for; and a file that is sourced is part of what was typed."""
    write_script(sh.folder)
    with sh.typed_in() as shell:
        shell.ready()
        run = watched()
        pid, _status = sh.run("job.sh")
        string, _status = sh.run("-c", "true; false")
        shell.run(". ./part.sh")
        lines = commands(run, pid, string, shell.pid)
    assert with_origin(lines) == [(". ./part.sh", 4, "typed")]


def test_long_texts(watched, sh):
    """Longer than the buffer of the shell; cut where the limit is, and counted."""
    long, longer = "x" * 9000, "y" * 70000
    (sh.folder / "long.sh").write_text(f"true {long}\ntrue <<END\n{longer}\nEND\nfalse")
    with sh.typed_in() as other:
        other.ready()
        run = watched("--non-interactive")
        pid, _status = sh.run("long.sh")
        lines = commands(run, pid)
    assert told(lines) == [
        (f"true {long}", 0),
        (f"true <<END\n{longer}\nEND"[:65536], 0),
        ("false", 1),
    ]
    assert [line["missing"] for line in lines] == ["", "truncated", ""]
    assert run.summary["truncated"] == 1


def test_targets_say_why(sh):
    with sh.typed_in() as shell:
        shell.ready()
        listed = run_ecapture("targets", "--json", "-p", shell.pid)
    [target] = json.loads(listed.stdout)
    assert (target["kind"], target["visible"], target["how"]) == (sh.comm, True, "fingerprint")
    assert set(target["evidence"]) == {"parsecmd", "preadbuffer.return", "cmdloop", "evalstring"}
