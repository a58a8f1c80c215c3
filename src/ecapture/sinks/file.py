# SPDX-License-Identifier: Apache-2.0
"""Opens output files so that nobody else gets to read or redirect what is captured."""

from __future__ import annotations

import os
import stat

from ecapture.errors import SinkError

_FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY


def open_output(path: str, *, append: bool = False, option: str = "-w") -> int:
    """A descriptor to write to ``path``, which is created with mode 0600 if it is not there.

    What is in it stays: whoever writes empties it once there is something to put in its place, so
    that a capture that cannot begin costs nobody an earlier one. ``option`` is for messages.

    Refused with SinkError: a symbolic link or an existing file that belongs to somebody else than
    us, root or the user who called sudo, because whoever planted it would choose what is
    overwritten or could read what is captured; a directory; anything that cannot be opened.
    """
    trusted = _trusted()
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise _refused(path, error.strerror, option) from None
    flags = _FLAGS | os.O_NOFOLLOW | (os.O_APPEND if append else 0)
    if found is not None:
        if found.st_uid not in trusted:
            what = "symbolic link" if stat.S_ISLNK(found.st_mode) else "file"
            raise _refused(path, f"is a {what} of another user (uid {found.st_uid})", option)
        if stat.S_ISLNK(found.st_mode):
            flags = flags & ~os.O_NOFOLLOW | os.O_CREAT
        if stat.S_ISDIR(found.st_mode):
            raise _refused(path, "is a directory", option)
    else:
        # Only then: for files of others in /tmp the kernel refuses it (fs.protected_regular).
        flags |= os.O_CREAT
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise _refused(path, error.strerror, option) from None
    opened = os.fstat(fd)
    if opened.st_uid not in trusted and stat.S_ISREG(opened.st_mode):
        os.close(fd)
        raise _refused(path, f"is a file of another user (uid {opened.st_uid})", option)
    return fd


def _trusted() -> set[int]:
    caller = os.environ.get("SUDO_UID", "")
    return {os.geteuid(), 0, int(caller) if caller.isdecimal() else 0}


def _refused(path: str, cause: str | None, option: str) -> SinkError:
    return SinkError(destination=path, cause=cause, hint=f"choose another file with {option} FILE")
