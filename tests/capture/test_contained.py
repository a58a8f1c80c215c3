# SPDX-License-Identifier: Apache-2.0
"""In a container of its own PID namespace: what works there is exact, the rest is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness import CAPTURES, ECAPTURE, parse_text, run_ecapture

from ecapture.binary.process import with_descendants

pytestmark = [CAPTURES, pytest.mark.needs("program:unshare", "program:prlimit")]
NEW = ("unshare", "-p", "-f", "--kill-child", "--mount-proc")
# As nsenter does, which passes no signals on.
ENTER = """
import ctypes, os, signal, sys
spaces = [os.open(f"/proc/{sys.argv[1]}/ns/{name}", os.O_RDONLY) for name in ("pid", "mnt")]
for space in spaces:
    assert ctypes.CDLL(None).setns(space, 0) == 0
child = os.fork()
if not child:
    os.execv(sys.argv[2], sys.argv[2:])
signal.signal(signal.SIGINT, lambda *_: os.kill(child, signal.SIGINT))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def contained(peer):
    """A pair that is process 2 of a PID namespace; ``pid`` is its number outside."""
    first = ("sh", "-c", '"$0" "$@"; read end')  # with the first process all others would end
    program = peer("pair", "--wait-go", sizes=[100, 70_000], prefix=(*NEW, *first))
    program.wait_for("ready")
    program.pid = max(with_descendants([program.process.pid]))
    return program


@pytest.mark.parametrize("options", [("--pid", "2"), ("--comm", "tlspeer"), ()])
def test_a_process_of_the_same_container_is_seen(capture, contained, options):
    inside = (sys.executable, "-c", ENTER, contained.pid)
    with capture(*options, prefix=inside) as run:
        contained.go()
        for side in ("client", "server"):
            assert contained.wait_for("done", side=side)["verified"]
        run.finish()
    assert "process ids that are shown are the host's" in run.stderr
    for direction in ("write", "read"):
        shown = run.shown(pid=contained.pid, direction=direction)
        streams = {
            b"".join(event.payload for event in shown if event.source == source)
            for source in {event.source for event in shown}
        }
        assert streams == {contained.says("c"), contained.says("s")}


@pytest.mark.parametrize(
    ("words", "needing"),
    [
        (("tls", "--", "true"), "-- command"),
        (("tls", "--pid", "1", "--follow"), "--follow"),
        (("tls", "--pid", "1", "--pcapfile", "/dev/null"), "--pid with packets"),
    ],
)
def test_what_needs_the_numbers_of_the_host_is_refused(words, needing):
    done = run_ecapture(*words, prefix=NEW)
    assert done.returncode == 3
    assert f"{needing} needs the process ids of the host" in done.stderr.decode()
    assert b"--pid=host" in done.stderr
    assert b"ready:" not in done.stderr


def test_doctor_says_what_a_container_costs():
    done = run_ecapture("doctor", prefix=NEW)
    assert b"the PID namespace of a container" in done.stdout
    assert b"the processes of the host are visible" not in done.stdout


def test_the_root_of_a_user_namespace_is_told_to_leave_it():
    done = run_ecapture("tls", prefix=("unshare", "-U", "-r"))
    assert done.returncode == 3
    assert b"this root has not the rights of the host's" in done.stderr
    assert b"sudo" not in done.stderr
    assert run_ecapture("doctor", prefix=("unshare", "-U", "-r")).returncode == 3


def test_without_proc_nothing_is_attached():
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"')
    done = run_ecapture("tls", "--", "true", prefix=hidden)
    assert done.returncode == 3
    assert b"/proc is not mounted" in done.stderr


def test_without_sysfs_all_but_types_is_there(capture, peer):
    program = peer("pair", "--wait-go", sizes=[100])
    program.wait_for("ready")
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys && exec "$0" "$@"')
    with capture("--pid", program.pid, prefix=hidden) as run:
        program.run()
        run.finish()
    assert {event.payload for event in run.shown(direction="write")} == {
        program.says("c"),
        program.says("s"),
    }
    assert len(run.shown()) == 4


@pytest.mark.parametrize("limit", [12, 24, 40])
def test_too_few_descriptors_are_no_traceback(limit):
    done = run_ecapture("all", "--", "true", prefix=("prlimit", f"--nofile={limit}:{limit}"))
    assert done.returncode == 3, done.stderr
    assert b"ulimit -n" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_soft_limit_of_descriptors_is_raised_but_not_for_the_command(tmp_path):
    most = int(Path("/proc/self/limits").read_text().split("Max open files")[1].split()[1])
    script = "ulimit -n > limit"
    done = run_ecapture(
        *("all", "--", "sh", "-c", script),
        prefix=("prlimit", f"--nofile=40:{most}"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "limit").read_text() == "40\n"


@pytest.mark.needs("program:setpriv")
def test_two_rights_are_enough_for_what_one_runs_oneself(tlspeer, open_folder):
    if not all(place.stat().st_mode & 1 for place in ECAPTURE.parents):
        pytest.skip("the environment of these tests is closed to other users")
    rights = "+bpf,+perfmon"
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    given = ("--inh-caps", rights, "--ambient-caps", rights)
    said = ("--token", "two-rights", "--sizes", "100", "--count", "1")
    done = run_ecapture(
        *("tls", "--raw", "--", tlspeer, "pair", *said),
        prefix=(*user, *given),
        cwd=open_folder,
        env={"HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    assert len([event for event in parse_text(done.stdout) if event.length == 100]) == 4
