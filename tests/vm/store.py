# SPDX-License-Identifier: Apache-2.0
"""What guests are made from: where it is kept, who may fill it, what the host must have."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from archive import CannotRun

CHECKOUT = Path(__file__).resolve().parents[2]
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def vm_home() -> Path:
    """Return the directory that keeps what was fetched."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ecapture-vm"
    return Path(os.environ.get("ECAPTURE_VM_HOME") or default).absolute()


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time fetch the thing called ``name``."""
    locks = vm_home() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def need(program: str, package: str) -> str:
    """Return the path of a program of the host.

    Raises:
        CannotRun: it is not there; the text says which package has it.

    """
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise CannotRun(f"{program} is missing; install {package}")
    return path
