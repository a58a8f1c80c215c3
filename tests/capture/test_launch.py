# SPDX-License-Identifier: Apache-2.0
"""``ecapture tls -- command``: nothing of it is missed, nothing else is shown, its end is ours."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess

import pytest
from harness import CAPTURES, joined, parse_text, run_ecapture
from peers import assert_exact, installed_libssl, programs

pytestmark = CAPTURES
NOBODY = 65534
SAID = ["--token", "launched", "--sizes", "1,100,16384,100000"]


class Launched:
    """What tlspeer reported on the standard output of the capture that launched it."""

    def __init__(self, run):
        run.finish(None)
        self.reports = [json.loads(line) for line in run.process.stdout if line.startswith("{")]

    def says(self, label):
        return programs.stream("launched", label, [1, 100, 16384, 100000])

    def of(self, kind, **wanted):
        return [r for r in self.reports if r["event"] == kind and wanted.items() <= r.items()]


def test_the_command_is_seen_from_its_first_byte(capture, tlspeer):
    with capture(command=[tlspeer, "pair", *SAID]) as run:
        program = Launched(run)
    assert_exact(run.shown(), program)


def test_descendants_are_watched_and_others_are_not(capture, peer, tlspeer, tmp_path):
    other = peer("pair", "--wait-go")
    other.wait_for("ready")
    script = 'read word < "$0"; "$@"; true'
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with capture(command=["sh", "-c", script, fifo, tlspeer, "pair", "--fork", "2", *SAID]) as run:
        other.run()
        fifo.write_text("go\n")
        program = Launched(run)
    assert_exact(run.shown(), program, connections=2)
    assert run.shown(pid=other.pid) == []


@pytest.mark.parametrize("way", ["directly", "by env", "by a shell"])
def test_a_library_that_nobody_has_seen_and_that_speaks_at_once(capture, tlspeer, tmp_path, way):
    shutil.copy(installed_libssl(), tmp_path / "libssl.so.3")
    setting, words = f"LD_LIBRARY_PATH={tmp_path}", [str(tlspeer), "pair", *SAID]
    command = {
        "directly": words,
        "by env": ["env", setting, *words],
        "by a shell": ["sh", "-c", f"{setting} exec {shlex.join(words)}"],
    }[way]
    env = {"LD_LIBRARY_PATH": str(tmp_path)} if way == "directly" else {}
    with capture(command=command, env=env) as run:
        program = Launched(run)
    assert_exact(run.shown(), program)


@pytest.mark.needs("mapping_watch")
def test_a_library_that_only_the_command_uses(capture, tlspeer, tmp_path):
    shutil.copy(installed_libssl(), tmp_path / "libssl.so.3")
    words = ["env", f"LD_LIBRARY_PATH={tmp_path}", tlspeer, "pair", "--wait-go", *SAID]
    with capture("-d", command=words, stdin=subprocess.PIPE) as run:
        run.wait_attached(tmp_path / "libssl.so.3")
        run.process.stdin.write("go\n")
        run.process.stdin.close()
        program = Launched(run)
    assert_exact(run.shown(), program)


@pytest.mark.parametrize(
    "script, status", [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_the_status_of_the_command_is_passed_on(capture, script, status):
    with capture(command=["sh", "-c", script]) as run:
        run.finish(None, status)
    assert run.summary["events"] == 0


def test_the_command_runs_as_the_user_who_called_sudo(capture, tlspeer):
    script = 'echo "$(id -u) $(id -g) $HOME"; exec "$@"'
    env = {"SUDO_UID": str(NOBODY), "SUDO_GID": "1", "SUDO_USER": "somebody"}
    with capture(command=["sh", "-c", script, "sh", tlspeer, "pair", *SAID], env=env) as run:
        run.finish(None)
        first, *_ = run.process.stdout.read().splitlines()
    account = pwd.getpwuid(NOBODY)
    assert first == f"{NOBODY} {account.pw_gid} {account.pw_dir}"
    assert joined(run.shown(direction="write")).count(b"launched:c 2 ") > 100


def test_a_user_who_does_not_exist_is_refused():
    done = run_ecapture("tls", "--", "true", env={"SUDO_UID": "4000000"})
    assert done.returncode == 2
    assert b"SUDO_UID" in done.stderr


@pytest.mark.parametrize("command", ["/no/such/program", "no-such-program", "/etc/passwd"])
def test_a_command_that_cannot_run_is_named(command):
    done = run_ecapture("tls", "--", command)
    assert done.returncode == 4
    assert command in done.stderr.decode()
    assert b"ready:" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_command_after_the_dashes_is_refused():
    done = run_ecapture("tls", "--")
    assert done.returncode == 2
    assert b"no command" in done.stderr


def test_what_the_command_prints_is_not_mixed_into_the_data(tlspeer):
    script = 'echo printed; echo complained >&2; exec "$@" >&2'
    done = run_ecapture("tls", "--raw", "--", "sh", "-c", script, "sh", tlspeer, "pair", *SAID)
    assert done.returncode == 0
    assert b"printed\n" in done.stderr
    assert b"complained\n" in done.stderr
    assert len(joined(parse_text(done.stdout))) == 2 * 2 * (1 + 100 + 16384 + 100000)


def test_interrupting_the_capture_ends_the_command(capture, tmp_path):
    script = 'trap "echo ended > $0; exit" TERM; echo started; while :; do read word; done'
    with capture(command=["sh", "-c", script, tmp_path / "mark"]) as run:
        assert run.process.stdout.readline() == "started\n"
        run.finish()
    assert run.process.returncode == 0


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("tls", "--", "true"), "seen; `ecapture all` observes the rest, `ecapture targets` lists"),
        (("all", "--non-interactive", "--", "true"), "seen; `ecapture targets` lists who"),
        (("bash", "--", "bash", "-c", "true"), "is shown with --non-interactive"),
    ],
)
def test_a_capture_that_saw_nothing_says_what_to_do(words, advice):
    lines = run_ecapture(*words).stderr.decode().splitlines()
    assert lines[-1].startswith("summary: events=0 ")
    assert lines[-2].startswith("ecapture: nothing was seen; ")
    assert advice in lines[-2]


def test_a_capture_that_saw_something_does_not(capture, tlspeer):
    with capture(command=[tlspeer, "pair"]) as run:
        run.finish(None)
    assert "nothing was seen" not in run.stderr
