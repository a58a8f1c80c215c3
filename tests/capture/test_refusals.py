# SPDX-License-Identifier: Apache-2.0
"""Bad input is refused before anything is attached: what is wrong, what to do, an exit code."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import CAPTURES, ECAPTURE, run_ecapture
from peers import installed_libssl

pytestmark = CAPTURES
NOBODY = 65534


def refused(*words, status, says, **how):
    """Runs the command and checks that it was refused as it should. Returns its messages."""
    done = run_ecapture(*words, **how)
    errors = done.stderr.decode()
    assert done.returncode == status, errors
    assert done.stdout == b""
    for text in (says,) if isinstance(says, str) else says:
        assert text in errors
    assert "ready:" not in errors
    assert "summary:" not in errors
    assert "Traceback" not in errors
    return errors


# --- rights ---


def test_without_root_the_exact_command_is_given():
    if not all(place.stat().st_mode & 1 for place in ECAPTURE.parents):
        pytest.skip("the environment of these tests is closed to other users")
    words = ["tls", "--pid", "1", "--comm", "two words"]
    errors = refused(
        *words, status=3, says="needs", user=NOBODY, group=NOBODY, extra_groups=(), cwd="/"
    )
    assert f"sudo {shlex.join([str(ECAPTURE), *words])}" in errors.splitlines()[-1]


# --- processes ---


def test_a_process_that_is_not_there():
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    refused("tls", "--pid", beyond, status=4, says=(str(beyond), "ecapture targets"))


def test_a_thread_is_not_a_process(peer):
    program = peer("pair", "--wait-connected")
    program.wait_for("ready")
    thread = max(int(task.name) for task in Path(f"/proc/{program.pid}/task").iterdir())
    assert thread != program.pid
    refused(
        *("tls", "--pid", thread),
        status=2,
        says=(f"{thread} is a thread of process {program.pid}", f"use --pid {program.pid}"),
    )


@pytest.mark.parametrize("pid", ["-1", "x", "99999999999999999999"])
def test_what_is_no_process_id(pid):
    done = run_ecapture("tls", f"--pid={pid}")
    assert done.returncode in {2, 4}
    assert b"Traceback" not in done.stderr


def test_a_process_that_ends_during_start(peer):
    # Ended and not yet waited for: it has an entry in /proc, and nothing in it.
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    program.process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    refused("tls", "--pid", program.pid, status=4, says=str(program.pid))


@pytest.mark.parametrize(
    "words, says",
    [
        (["--comm", "sixteen-letters."], "15"),
        (["--comm", ""], "--comm"),
        (["--cgroup_path", "/tmp"], "cgroup"),
        (["--cgroup_path", "/no/such/cgroup"], "/no/such/cgroup"),
    ],
    ids=["comm-long", "comm-empty", "no-cgroup", "no-directory"],
)
def test_filters_that_match_nothing_ever(words, says):
    status = 4 if "--cgroup_path" in words else 2
    refused("tls", *words, status=status, says=says)


# --- files to observe ---


@pytest.fixture
def odd_file(tmp_path):
    """``odd_file(bytes)``: a file with such content."""

    def write(content):
        (tmp_path / "odd").write_bytes(content)
        return tmp_path / "odd"

    return write


def test_a_file_that_is_not_elf():
    refused("tls", "--libssl", "/etc/passwd", status=4, says="/etc/passwd")


def test_a_file_for_another_machine(odd_file):
    image = bytearray(installed_libssl().read_bytes())
    machine = int.from_bytes(image[18:20], "little")  # e_machine, elf(5)
    other = {62: (183, "aarch64"), 183: (62, "x86_64")}[machine]
    image[18:20] = other[0].to_bytes(2, "little")
    path = odd_file(image)
    refused("tls", "--libssl", path, status=4, says=(str(path), other[1], os.uname().machine))


@pytest.mark.parametrize("end", [0, 1, 63, 64, 1000, 100000])
def test_a_file_that_was_cut_short(odd_file, end):
    path = odd_file(installed_libssl().read_bytes()[:end])
    refused("tls", "--libssl", path, status=4, says=str(path))


def test_a_file_without_the_functions():
    refused("tls", "--libssl", "/bin/true", status=4, says=("/bin/true", "SSL_read"))


def test_a_library_that_is_not_there_and_a_directory(tmp_path):
    refused("tls", "--libssl", tmp_path / "none", status=4, says=str(tmp_path / "none"))
    refused("tls", "--libssl", tmp_path, status=4, says=str(tmp_path))


# --- where to write ---


def test_a_place_that_cannot_be_written(tmp_path):
    refused("tls", "-w", tmp_path / "no" / "file", status=6, says=str(tmp_path / "no" / "file"))
    refused("tls", "-w", tmp_path, status=6, says="directory")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_another_user_has_planted(tmp_path, kind):
    precious, planted = tmp_path / "precious", tmp_path / "planted"
    precious.write_text("as it was")
    if kind == "link":
        planted.symlink_to(precious)
    else:
        shutil.copy(precious, planted)
    os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
    refused("tls", "-w", planted, status=6, says=(str(planted), "another user"))
    assert precious.read_text() == planted.read_text() == "as it was"


# --- options ---


@pytest.mark.parametrize(
    "words, says",
    [
        (["-m", "nonsense"], "nonsense"),
        (["--mapsize", "1k"], "--mapsize"),
        (["--mapsize", "big"], "--mapsize"),
        (["--mapsize", "64g"], "--mapsize"),
        (["--mapsize", "9" * 400], "--mapsize"),
        (["--truncate", "x"], "--truncate"),
        (["--truncate", "-1"], "--truncate"),
        (["--btf", "3"], "--btf"),
        (["--no-such-option"], "--no-such-option"),
        (["tcp", "port", "443"], "filter"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_options_that_cannot_be(words, says):
    refused("tls", *words, status=2, says=says)


def test_an_unknown_command():
    refused("nonsense", status=2, says="nonsense")


def test_without_a_command_the_help_is_an_error_message():
    done = run_ecapture()
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Usage" in done.stderr


# --- what the kernel lacks ---


def test_without_ring_buffers_nothing_can_be_captured():
    refused("tls", status=3, says=("ringbuf", "5.8"), env={"ECAPTURE_WITHOUT": "ringbuf"})


def test_types_that_are_required_and_missing():
    refused("tls", "--btf", "1", status=3, says="BTF", env={"ECAPTURE_WITHOUT": "btf"})


def test_descendants_cannot_be_followed_without_types(peer):
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    words = ("tls", "--pid", program.pid, "--follow")
    refused(*words, status=3, says="--follow", env={"ECAPTURE_WITHOUT": "btf"})


def test_a_closed_standard_error_is_no_reason_to_fail(tlspeer):
    script = f'{shlex.quote(str(ECAPTURE))} tls --raw -- "$0" pair 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, tlspeer], capture_output=True, check=False, timeout=60
    )
    assert done.stdout.count(b"--- ") == 4
