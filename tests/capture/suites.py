# SPDX-License-Identifier: Apache-2.0
"""Programs of other Debian releases, each release a tree of its own, run as in a container.

The packages of a tree and all that they need are fetched once (``tests/vm/archive.py`` says how
they are checked) and kept below ``$ECAPTURE_CORPUS_HOME`` (default ``~/.cache/ecapture-corpus``).
Nothing is installed, and no program runs but those that a test starts: package scripts never do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "vm"))

from archive import CannotRun, Suite, host_mirrors

_HOME = Path(os.environ.get("ECAPTURE_CORPUS_HOME", Path.home() / ".cache" / "ecapture-corpus"))
_ENTER = Path(__file__).parent / "programs" / "in_tree.py"
_COMMON: Final = (
    *("libc-bin", "coreutils", "bash", "bash-static", "zsh", "zsh-static"),
    *("dash", "busybox-static", "fish"),
    *("openssl", "curl", "gnutls-bin", "python3-minimal", "libpython3-stdlib"),
)
_PACKAGES: Final = {
    "bullseye": (*_COMMON, "mariadb-server-core-10.5"),
    "trixie": (*_COMMON, "mariadb-server-core"),
    "sid": (*_COMMON, "mariadb-server-core"),
}


class Tree(NamedTuple):
    """The files of a release."""

    suite: str
    root: Path

    def command(self, shared: Path, *words: object) -> tuple[str, ...]:
        """What runs a program in the tree, in the same process; it finds ``shared`` as /tmp."""
        return (
            *(sys.executable, "-I", str(_ENTER), str(self.root), str(shared)),
            *map(str, words),
        )


def tree(suite: str) -> Tree:
    """The tree of a release, fetched if need be; skips the test where that cannot be."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    packages = _PACKAGES[suite]
    version = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    root = _HOME / "trees" / f"{suite}-{arch}-{version}"
    if not root.is_dir():
        try:
            _fetch(suite, arch, packages, root)
        except CannotRun as error:
            if os.environ.get("ECAPTURE_REQUIRE") == "1":
                raise
            pytest.skip(f"Debian {suite} cannot be fetched: {error}")
    return Tree(suite, root)


def _fetch(suite: str, arch: str, packages: tuple[str, ...], root: Path) -> None:
    fresh = root.with_name(f"{root.name}.{os.getpid()}")
    try:
        archive = Suite(_HOME / "archive", host_mirrors(), suite, arch)
        archive.update()
        archive.unpack(archive.closure(*packages), fresh)
        for name in ("bin", "sbin", "lib", "lib64"):  # where the installer makes these links
            if not (fresh / name).exists():
                (fresh / name).symlink_to(f"usr/{name}")
        for name in ("proc", "dev", "tmp"):
            (fresh / name).mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # somebody else was quicker
            fresh.rename(root)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
