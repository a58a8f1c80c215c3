# SPDX-License-Identifier: Apache-2.0
"""A shell at a pseudo-terminal, driven as by a person: types, and waits for the prompt.

The prompts are marks that nothing typed contains. What is typed before a prompt is there would be
echoed twice, so every step waits for the mark that must follow it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from harness import DEADLINE, NOTHING, wait_until

PROMPT, MORE = b"<@1>", b"<@2>"
_TIOCGPTN = 0x80045430  # asm-generic/ioctls.h: number of the pseudo-terminal
# read, select, poll, pselect6, ppoll: asm/unistd_64.h of x86_64; asm-generic/unistd.h
_READING = {"0", "23", "7", "270", "271"} if os.uname().machine == "x86_64" else {"63", "72", "73"}
INTERRUPT, SUSPEND, END = "\x03", "\x1a", "\x04"


class Terminal:
    """One shell; ``pid`` is its process. Leaving the context kills it."""

    def __init__(
        self,
        *command: str,
        uid: int = 0,
        folder: Path = Path("/"),
        env: Mapping[str, str] = NOTHING,
    ) -> None:
        self._prompts = self._mores = 0
        self._output = bytearray()
        environment = {
            "PATH": os.environ["PATH"],
            "PS1": PROMPT.decode(),
            "PS2": MORE.decode(),
            "TERM": "dumb",
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "HISTFILE": "/dev/null",
            "INPUTRC": "/dev/null",
        }
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            self._become(command, uid, folder, environment | dict(env))
        number = fcntl.ioctl(self._fd, _TIOCGPTN, bytes(4))
        self.name = f"pts/{int.from_bytes(number, sys.byteorder)}"
        self._status: int | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _become(
        self, command: Sequence[str], uid: int, folder: Path, environment: dict[str, str]
    ) -> None:
        try:
            os.chdir(folder)
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            os.execvpe(command[0], command, environment)
        finally:
            os._exit(127)

    def _read(self) -> None:
        while True:
            try:
                read = os.read(self._fd, 65536)
            except OSError:  # the shell is gone
                return
            self._output += read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._fd)

    def ready(self) -> Terminal:
        """Waits for the next prompt."""
        self._prompts += 1
        self._wait(PROMPT, self._prompts)
        return self

    def run(self, *lines: str) -> None:
        """Types a command; waits for the second prompt behind each of its lines but the last."""
        for line in lines[:-1]:
            self.more(line)
        self.send(f"{lines[-1]}\n")
        self.ready()

    def more(self, line: str) -> None:
        """Types a line of a command that goes on."""
        self.send(f"{line}\n")
        self._mores += 1
        self._wait(MORE, self._mores)

    def send(self, text: str) -> None:
        """Types without waiting."""
        rest = text.encode("utf-8", "surrogateescape")
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def when(self, text: bytes) -> None:
        """Waits until a text was printed."""
        wait_until(
            lambda: text in self._output, lambda: f"{text!r} in {bytes(self._output[-2000:])!r}"
        )

    def when_running(self) -> None:
        """Waits until another program has the terminal: a command is in the foreground.

        Not merely another process: a child of the shell that did not come to run its program yet
        swallows what is sent to interrupt it.
        """

        def foreground() -> bool:
            group = os.tcgetpgrp(self._fd)
            try:
                return group != self.pid and not Path(f"/proc/{group}/exe").samefile(
                    f"/proc/{self.pid}/exe"
                )
            except OSError:
                return False

        wait_until(foreground, "a command in the foreground")

    def jobs(self, sleep: str = "sleep", cat: str = "cat") -> None:
        """Interrupts a command, suspends another one, and lets that go on to its end."""
        self.send(f"{sleep} 1000\n")
        self.when_running()
        self.send(INTERRUPT)
        self.ready()
        self.send(f"{cat}\n")
        self.when_running()
        self.send(SUSPEND)
        self.ready()
        self.send("fg\n")
        self.when_running()
        self.send(END)
        self.ready()

    def interrupt(self, shown: bytes) -> None:
        """Types Ctrl-C at a prompt behind which ``shown`` is to be seen.

        Not before the shell sleeps waiting for keys: readline looks whether a signal came and then
        calls pselect, so a signal in between is noticed with the next key only (readline 8.2).
        """
        self.when(shown)
        wait_until(self._waits_for_keys, "a shell that waits for keys")
        self.send(INTERRUPT)

    def _waits_for_keys(self) -> bool:
        process = Path(f"/proc/{self.pid}")
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state == "S" and (process / "syscall").read_text().split()[0] in _READING

    def when_editing(self) -> None:
        """Waits until the shell reads key by key."""

        def raw() -> bool:
            return not termios.tcgetattr(self._fd)[3] & termios.ICANON

        wait_until(raw, "a line editor")

    def wait(self) -> int:
        """Waits for the end of the shell; its status as the kernel tells it."""
        if self._status is None:
            fd = os.pidfd_open(self.pid)
            try:
                done = threading.Event()
                thread = threading.Thread(
                    target=lambda: (os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT), done.set()),
                    daemon=True,
                )
                thread.start()
                assert done.wait(DEADLINE), "the shell does not end"
                self._status = os.waitpid(self.pid, 0)[1]
            finally:
                os.close(fd)
        return self._status

    def _wait(self, mark: bytes, times: int) -> None:
        wait_until(
            lambda: self._output.count(mark) >= times,
            lambda: f"{times} times {mark!r} in {bytes(self._output[-2000:])!r}",
        )
