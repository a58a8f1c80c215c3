# SPDX-License-Identifier: Apache-2.0
"""Starts the command of ``ecapture … -- command``: held back until the probes are in place.

The child is forked early, waits on a pipe, and becomes the command when told: as the user who
called sudo, with that user's groups and home. Captured data goes to our standard output, so the
command's own standard output is moved to standard error unless the capture is written elsewhere.
"""

from __future__ import annotations

import errno
import os
import pwd
import signal
import sys
from collections.abc import Sequence

from ecapture.errors import NotExecutable, TargetNotFound, UsageError


class Launched:
    """A command that waits to be started. ``pid`` is known from the beginning."""

    def __init__(self, command: Sequence[str], *, keep_stdout: bool) -> None:
        self.command = tuple(command)
        self._go_read, self._go_write = os.pipe()
        self._failed_read, self._failed_write = os.pipe()
        self._status: int | None = None
        self._started = False
        account = _invoking_user()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(account, keep_stdout=keep_stdout)
        os.close(self._go_read)
        os.close(self._failed_write)

    def _become(self, account: pwd.struct_passwd | None, *, keep_stdout: bool) -> None:
        # In the child: never returns.
        try:
            os.close(self._go_write)
            os.close(self._failed_read)
            if not os.read(self._go_read, 1):
                os._exit(0)  # the parent gave up
            # what Python ignores (PIPE, XFSZ), and what the capture is ended by
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            if not keep_stdout:
                os.dup2(2, 1)
            environment = dict(os.environ)
            if account is not None:
                os.initgroups(account.pw_name, account.pw_gid)
                os.setgid(account.pw_gid)
                os.setuid(account.pw_uid)
                environment |= {
                    "HOME": account.pw_dir,
                    "USER": account.pw_name,
                    "LOGNAME": account.pw_name,
                    "SHELL": account.pw_shell,
                }
            os.execvpe(self.command[0], self.command, environment)  # noqa: S606 - no shell wanted
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            code = getattr(error, "errno", 0) or 0
            os.write(self._failed_write, str(code).encode())
        finally:
            os._exit(127)

    def start(self) -> None:
        """Lets the command run. Raises TargetNotFound or NotExecutable if it cannot be."""
        self._started = True
        os.write(self._go_write, b"g")
        os.close(self._go_write)
        with os.fdopen(self._failed_read, "rb") as failed:
            code = failed.read()
        if code:
            self.wait()
            number, hint = int(code), "give the command after -- as you would type it"
            if number == errno.ENOENT:
                looked_in = f"PATH ({os.strerror(number)})"
                raise TargetNotFound(looked_for=self.command[0], looked_in=looked_in, hint=hint)
            raise NotExecutable(
                path=self.command[0], reason=f"cannot be run ({os.strerror(number)})", hint=hint
            )

    def poll(self) -> int | None:
        """The exit status as a shell would tell it, or None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._keep(status)
        return self._status

    def wait(self) -> int:
        """Waits for the end. Returns the exit status as a shell would tell it."""
        if self._status is None:
            self._keep(os.waitpid(self.pid, 0)[1])
        return self._status or 0

    def terminate(self) -> None:
        """Passes our own end on to the command; one that was never started ends by itself."""
        if not self._started:
            os.close(self._go_write)
            os.close(self._failed_read)
            self.wait()
        elif self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _keep(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._status = code if code >= 0 else 128 - code


def _invoking_user() -> pwd.struct_passwd | None:
    uid = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not uid:
        return None
    try:
        found = pwd.getpwuid(int(uid))
    except (KeyError, ValueError):
        raise UsageError(
            option="SUDO_UID", problem=f"{uid!r} is no user of this system", hint="unset SUDO_UID"
        ) from None
    return found if found.pw_uid else None
