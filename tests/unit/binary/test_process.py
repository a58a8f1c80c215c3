# SPDX-License-Identifier: Apache-2.0
"""What ``/proc`` says is read as it is, and processes that vanish do no harm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ecapture.binary.process import (
    Container,
    all_pids,
    is_running,
    mapped_files,
    parse_cgroup,
    processes,
    read_process,
)
from ecapture.errors import TargetNotFound

ID = "0123456789abcdef" * 4
POD = "3b1a4a0e-5c1f-4a8e-9d1c-0123456789ab"
UNIT_POD = POD.replace("-", "_")


def test_describes_this_very_process() -> None:
    process = read_process(os.getpid())
    assert process.pid == os.getpid()
    assert process.ppid == os.getppid()
    assert process.uid == os.getuid()
    assert process.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    assert process.exe == os.path.realpath("/proc/self/exe")
    assert process.mount_namespace == Path("/proc/self/ns/mnt").stat().st_ino
    assert process.threads == threading.active_count()
    assert 0 < process.started_ns < time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert process.seccomp in ("off", "filter")
    assert not process.kernel_thread
    assert process.problem == ""


def test_reads_names_made_to_confuse(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (\n)"
    program.symlink_to("/bin/sh")
    script = "echo; read line"
    pipe = subprocess.PIPE
    with subprocess.Popen([str(program), "-c", script], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = read_process(child.pid)
        child.communicate(b"\n")
    assert process.ppid == os.getpid()
    assert process.comm == ") R 1 (\n)"


def test_a_process_that_nobody_waited_for_is_over() -> None:
    assert is_running(os.getpid())
    with subprocess.Popen(["sleep", "100"]) as process:
        assert is_running(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert not is_running(process.pid)
    assert not is_running(process.pid)


def test_a_process_whose_first_thread_ended_goes_on() -> None:
    program = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "print('x', flush=True)\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit(2) of the calling thread, on x86_64
    )
    if os.uname().machine != "x86_64":
        program = program.replace("60", "93")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        state = Path(f"/proc/{process.pid}/task/{process.pid}/stat")
        deadline = time.monotonic() + 30
        while b") Z" not in state.read_bytes() and time.monotonic() < deadline:
            os.sched_yield()
        assert b") Z" in state.read_bytes()
        assert is_running(process.pid)


def test_leaves_out_what_vanished() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert [process.pid for process in processes([child.pid, os.getpid()])] == [os.getpid()]
    for question in (read_process, mapped_files):
        with pytest.raises(TargetNotFound):
            question(child.pid)


def test_survives_processes_that_come_and_go() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        for _ in range(10):
            assert os.getpid() in [process.pid for process in processes()]
    finally:
        stop.set()
        worker.join()


def test_lists_kernel_threads_only_when_asked() -> None:
    everything = {process.pid: process for process in processes(kernel_threads=True)}
    shown = {process.pid for process in processes()}
    for pid, process in everything.items():
        if process.kernel_thread:
            assert pid not in shown
            assert process.exe == ""
    assert os.getpid() in shown
    assert set(all_pids()) & shown


def test_names_the_files_a_process_runs(
    compile_c: Callable[..., Path], run_with: Callable[[Path], int]
) -> None:
    odd = compile_c("int f(void) { return 1; }", "-shared", "-fPIC", name="odd name\n.so")
    pid = run_with(odd)
    files = {file.name: file for file in mapped_files(pid)}
    file = files[str(odd)]
    status = odd.stat()
    assert (file.device, file.inode) == (status.st_dev, status.st_ino)
    assert file.exact
    assert not file.deleted
    assert file.start < file.end
    assert file.map_files == f"/proc/{pid}/map_files/{file.start:x}-{file.end:x}"
    assert os.path.realpath(sys.executable) in files
    assert all(name.startswith("/") for name in files)
    odd.unlink()
    gone = [file for file in mapped_files(pid) if file.name == str(odd)]
    assert [file.deleted for file in gone] == [True]
    assert gone[0].inode == status.st_ino


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/docker/{ID}", Container(ID, "docker")),
        (f"/system.slice/docker-{ID}.scope", Container(ID, "docker")),
        (f"/system.slice/docker-{ID}.scope/init.scope", Container(ID, "docker")),
        (f"/user.slice/user-1000.slice/libpod-{ID}.scope/container", Container(ID, "podman")),
        (f"/machine.slice/libpod-{ID}.scope", Container(ID, "podman")),
        (f"/libpod_parent/libpod-{ID}", Container(ID, "podman")),
        (f"/default/{ID}", Container(ID, "containerd")),
        (f"/system.slice/nerdctl-{ID}.scope", Container(ID, "containerd")),
        (f"/kubepods/burstable/pod{POD}/{ID}", Container(ID, "kubernetes", POD)),
        (
            f"/kubepods.slice/kubepods-besteffort-pod{UNIT_POD}.slice/cri-containerd-{ID}.scope",
            Container(ID, "containerd", POD),
        ),
        (
            f"/kubepods.slice/kubepods-pod{UNIT_POD}.slice/crio-{ID}.scope",
            Container(ID, "cri-o", POD),
        ),
        (
            f"/system.slice/containerd.service/kubepods-pod{UNIT_POD}.slice:cri-containerd:{ID}",
            Container(ID, "containerd", POD),
        ),
        (f"/docker/{'a' * 64}/docker/{ID}", Container(ID, "docker")),
        ("/lxc/web/init.scope", Container("web", "lxc")),
        ("/lxc.payload.web/system.slice", Container("web", "lxc")),
        ("/user.slice/user-0.slice/session-1.scope", None),
        (f"/machine.slice/libpod-conmon-{ID}.scope", None),
        ("/system.slice/docker.service", None),
        (f"/other/{ID}", None),
        ("/", None),
    ],
)
def test_knows_containers_by_their_cgroup(path: str, container: Container | None) -> None:
    assert parse_cgroup(f"0::{path}\n") == (path, container)
    assert parse_cgroup(f"4:memory:{path}\n1:name=systemd:{path}\n0::/\n") == (path, container)


@pytest.mark.parametrize("text", ["", "\n", "0", "0:", "0::", "x:y\n" * 1000, ":" * 100])
def test_survives_any_cgroup(text: str) -> None:
    assert parse_cgroup(text)[1] is None


def test_a_container_whose_name_is_no_text_has_one_that_is() -> None:
    path = os.fsdecode(b"/user.slice/lxc/\xff")
    assert parse_cgroup(f"0::{path}\n") == (path, Container(r"\xff", "lxc"))
