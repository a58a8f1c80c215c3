# SPDX-License-Identifier: Apache-2.0
"""Compile the C programs that capture tests watch, and know their payload.

``build`` makes one variant in a directory of the caller's choice and leaves it alone as long as it
is newer than every source. The variants differ only in how libssl is linked and which symbols are
left, because that is what finding the hooks depends on:

=========================  =========================================================
tlspeer                    the distribution's shared libssl
tlspeer-static             libssl inside; in ``.dynsym`` (``-rdynamic``) and ``.symtab``
tlspeer-static-dynsym      libssl inside; ``.dynsym`` only, as a stripped program that exports
tlspeer-static-symtab      libssl inside; ``.symtab`` only
tlspeer-stripped           libssl inside; no name of any of its functions is left
=========================  =========================================================

Invariant: a file under its final name is complete, also while several test runs build at once.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
WARNINGS = ("-Wall", "-Wextra", "-Werror")
SHARED = ("-lssl", "-lcrypto")
STATIC = ("-l:libssl.a", "-l:libcrypto.a", "-ldl")


class BuildError(Exception):
    """The compiler refused; its messages are the text."""


class Recipe(NamedTuple):
    """What goes into one program: patterns of sources and what the linker is told."""

    sources: tuple[str, ...]
    link: tuple[str, ...]

    def source_paths(self) -> list[Path]:
        """Every source file, in a stable order."""
        return sorted(path for pattern in self.sources for path in HERE.glob(pattern))


_PEER = ("tlspeer.c", "peer_*.c")
PROGRAMS = {
    "tlspeer": Recipe(_PEER, SHARED),
    "tlspeer-static": Recipe(_PEER, ("-rdynamic", *STATIC)),
    "tlspeer-static-dynsym": Recipe(_PEER, ("-rdynamic", "-s", *STATIC)),
    "tlspeer-static-symtab": Recipe(_PEER, STATIC),
    "tlspeer-stripped": Recipe(_PEER, ("-s", *STATIC)),
}


def build(name: str, out_dir: Path | str, cc: str = "gcc") -> Path:
    """Make the program ``name`` in ``out_dir`` and return its path.

    It is compiled only when it is missing or older than a source or header. Raises ``KeyError``
    for an unknown name and ``BuildError`` with the compiler's words.
    """
    recipe = PROGRAMS[name]
    sources = recipe.source_paths()
    target = Path(out_dir) / name
    newest = max(path.stat().st_mtime for path in [*sources, *HERE.glob("*.h"), Path(__file__)])
    if target.exists() and target.stat().st_mtime > newest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(prefix=f".{name}.", dir=target.parent)
    os.close(handle)
    command = [cc, "-O1", "-g", *WARNINGS, "-pthread", "-o", fresh, *map(str, sources)]
    try:
        done = subprocess.run(
            [*command, *recipe.link], capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode:
            raise BuildError(done.stderr)
        Path(fresh).chmod(0o755)
        Path(fresh).replace(target)
    finally:
        Path(fresh).unlink(missing_ok=True)
    return target


def message(token: str, side: str, sequence: int, size: int) -> bytes:
    """Return message number ``sequence`` of one direction, as tlspeer says it.

    ``side`` is ``c`` for what the client writes, ``s`` for what the server writes, ``e`` for the
    client's early data (whose messages are at most 4096 bytes), ``d`` for the write that is cut
    short by ``--die-mid-call write``.
    """
    pattern = f"{token}:{side} {sequence} ".encode()
    return (pattern * (size // len(pattern) + 1))[:size]


def stream(token: str, side: str, sizes: list[int], count: int = 1) -> bytes:
    """Return everything one direction says, given the options ``--sizes`` and ``--count``."""
    if side == "e":
        sizes = [min(size, 4096) for size in sizes]
    return b"".join(
        message(token, side, sequence, sizes[sequence % len(sizes)])
        for sequence in range(len(sizes) * count)
    )
