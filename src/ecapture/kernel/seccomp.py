# SPDX-License-Identifier: Apache-2.0
"""Finds out whether a return probe would kill a program that runs under seccomp.

From Linux 6.11 on x86-64 the trampoline of a return probe is a system call of its own (uretprobe).
A seccomp filter that does not list it kills the program at its first probed return, until the fix
"seccomp: passthrough uretprobe systemcall without filtering" (February 2025, in 6.14 and
stable updates). Asked by doing it: a child of ours enters the strictest seccomp mode and returns
from a probed function. A first round without probe shows that the child survives otherwise.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from ecapture.binary.elf import ElfFile
from ecapture.errors import ECaptureError
from ecapture.kernel import _native

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_STRICT = 1  # read, write, exit and sigreturn only
_UPROBE_MULTI = 48
_KPROBE_PROGRAM = 2
_RETURN_0 = bytes.fromhex("b700000000000000") + bytes.fromhex("9500000000000000")
_FUNCTION = "labs"  # in every libc, and makes no system call


def _libc() -> tuple[str, int] | None:
    """Path of our own C library and the file offset of the probed function."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line[73:].strip()
        if "/libc.so" in path or "/ld-musl" in path or "/libc-2" in path:
            with ElfFile(path) as elf:
                address = elf.symbol(_FUNCTION)
                return (path, elf.file_offset(address.address)) if address is not None else None
    return None


def _child(libc: ctypes.CDLL, go: int, done: int) -> None:
    # Everything that the strict mode forbids is done before: from here on we may only call.
    function, write, byte = getattr(libc, _FUNCTION), libc.write, b"x"
    function(5)
    os.read(go, 1)
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_STRICT, 0, 0, 0)
    function(5)
    write(done, byte, 1)
    os._exit(0)  # killed here: exit_group is forbidden, and the parent has its answer


def _survives(probe: tuple[str, int] | None) -> bool:
    libc = ctypes.CDLL(None)
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _child(libc, go_read, done_write)
        finally:
            os._exit(1)
    os.close(go_read)
    os.close(done_write)
    program = link = None
    try:
        if probe is not None:
            program = _native.load_program(_KPROBE_PROGRAM, _RETURN_0, _UPROBE_MULTI)
            link = _native.link_uprobe_multi(program, probe[0], [probe[1]], pid=pid, at_return=True)
        os.write(go_write, b"g")
        return os.read(done_read, 1) == b"x"
    finally:
        os.close(go_write)
        os.close(done_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if link is not None:
            link.close()
        if program is not None:
            os.close(program)


def return_probe_kills() -> bool | None:
    """True: it would. False: it is safe. None: it could not be found out."""
    try:
        probe = _libc()
        if probe is None or not _survives(None):
            return None
        return not _survives(probe)
    except (OSError, ECaptureError):
        return None
