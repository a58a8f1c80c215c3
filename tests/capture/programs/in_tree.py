# SPDX-License-Identifier: Apache-2.0
"""Becomes a program in a directory tree, as in a container: ``in_tree.py TREE SHARED COMMAND…``.

The tree is the root of a mount namespace of its own, read-only, as a container's runtime makes it
(pivot_root(2), "pivot_root(".", ".")"), so that paths seen from outside lead nowhere. ``/proc`` and
``/dev`` are the host's, ``SHARED`` is ``/tmp`` and where the program starts. The process stays the
same one; ``IN_TREE_UID`` is the user that it becomes.
"""

import ctypes
import os
import sys
import warnings  # noqa: F401 - os imports it when it looks for a program, where there is none

_CLONE_NEWNS = 0x20000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
_DETACH = 0x2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]

_libc = ctypes.CDLL(None, use_errno=True)


def _do(name: str, *arguments: object) -> None:
    given = [word.encode() if isinstance(word, str) else word for word in arguments]
    if getattr(_libc, name)(*given):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"{name}{arguments}")


def main(tree: str, shared: str, *command: str) -> None:
    """Never returns."""
    _do("unshare", _CLONE_NEWNS)
    _do("mount", None, "/", None, _REC | _PRIVATE, None)
    _do("mount", tree, tree, None, _BIND, None)
    _do("mount", None, tree, None, _BIND | _REMOUNT | _RDONLY, None)
    for source, place in (("/proc", "proc"), ("/dev", "dev"), (shared, "tmp")):
        _do("mount", source, f"{tree}/{place}", None, _BIND | _REC, None)
    os.chdir(tree)
    _do("syscall", _PIVOT_ROOT, ".", ".")
    _do("umount2", ".", _DETACH)
    os.chdir("/tmp")
    uid = int(os.environ.pop("IN_TREE_UID", "0"))
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.execvp(command[0], command)


main(*sys.argv[1:])
