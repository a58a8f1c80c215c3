# SPDX-License-Identifier: Apache-2.0
"""A command is held back, started, waited for; as the user who called sudo."""

import os
import pwd
import signal
import subprocess
import sys

import pytest

from ecapture.errors import NotExecutable, TargetNotFound, UsageError
from ecapture.launch import Launched


def run(*command, keep_stdout=True):
    launched = Launched(command, keep_stdout=keep_stdout)
    launched.start()
    return launched.wait()


def test_nothing_runs_before_start(tmp_path):
    mark = tmp_path / "mark"
    launched = Launched(["touch", str(mark)], keep_stdout=True)
    assert launched.poll() is None
    assert not mark.exists()
    launched.start()
    assert launched.wait() == 0
    assert launched.poll() == 0
    assert mark.exists()


def test_the_pid_is_that_of_the_command(tmp_path):
    out = tmp_path / "pid"
    launched = Launched(["sh", "-c", f"echo $$ > {out}"], keep_stdout=True)
    pid = launched.pid
    launched.start()
    launched.wait()
    assert int(out.read_text()) == pid


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)],
)
def test_the_status_is_that_of_a_shell(script, status):
    assert run("sh", "-c", script) == status


def test_the_command_ignores_no_signal(tmp_path):
    status = tmp_path / "status"
    assert run("sh", "-c", f"cat /proc/self/status > {status}") == 0
    masks = dict(line.split(":\t") for line in status.read_text().splitlines() if "Sig" in line)
    ignored = int(masks["SigIgn"], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored >> (number - 1) & 1, number


def test_what_cannot_be_executed_is_told_with_the_reason(tmp_path):
    with pytest.raises(TargetNotFound, match="No such file"):
        run("/nonexistent/program")
    plain = tmp_path / "plain"
    plain.write_text("text")
    with pytest.raises(NotExecutable, match=r"plain: cannot be run \(Permission denied"):
        run(str(plain))


def test_a_command_that_is_given_up_never_runs(tmp_path):
    mark = tmp_path / "mark"
    launched = Launched(["touch", str(mark)], keep_stdout=True)
    launched.terminate()
    assert not mark.exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(launched.pid, 0)


def test_terminate_ends_a_running_command_and_forgives_an_ended_one():
    launched = Launched(["sh", "-c", "read line"], keep_stdout=True)
    launched.start()
    launched.terminate()
    assert launched.wait() in (143, 1)  # 1: the shell's input was at its end already
    launched.terminate()


def test_signals_that_we_handle_are_ordinary_in_the_command():
    script = "trap - INT TERM; grep ^SigIgn /proc/self/status"
    previous = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        program = f"""
import sys
from ecapture.launch import Launched
launched = Launched(["sh", "-c", {script!r}], keep_stdout=True)
launched.start()
sys.exit(launched.wait())
"""
        shown = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
    finally:
        signal.signal(signal.SIGPIPE, previous)
    ignored = int(shown.split()[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        assert not ignored >> (number - 1) & 1


@pytest.mark.parametrize("keep", [True, False])
def test_standard_output_stays_ours_unless_kept(keep):
    program = f"""
import sys
from ecapture.launch import Launched
launched = Launched(["echo", "said"], keep_stdout={keep})
launched.start()
sys.exit(launched.wait())
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (shown.stdout, shown.stderr) == ((b"said\n", b"") if keep else (b"", b"said\n"))


@pytest.mark.needs("root")
def test_the_command_runs_as_the_user_who_called_sudo(monkeypatch, tmp_path):
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setenv("SUDO_UID", str(nobody.pw_uid))
    tmp_path.chmod(0o777)
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o111)
    out = tmp_path / "out"
    assert run("sh", "-c", f'echo "$(id -u) $(id -g) $(id -G) $HOME $USER" > {out}') == 0
    uid, gid, *rest = out.read_text().split()
    assert (int(uid), int(gid)) == (nobody.pw_uid, nobody.pw_gid)
    assert "0" not in rest[:-2]
    assert rest[-2:] == [nobody.pw_dir, "nobody"]


@pytest.mark.needs("root")
@pytest.mark.parametrize("uid", ["no number", "3999999999", "-5"])
def test_a_user_who_is_none_is_refused(monkeypatch, uid):
    monkeypatch.setenv("SUDO_UID", uid)
    with pytest.raises(UsageError, match="SUDO_UID"):
        Launched(["true"], keep_stdout=True)
