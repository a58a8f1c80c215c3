# SPDX-License-Identifier: Apache-2.0
"""What can be said of a file that has a TLS library, a shell or a database server in it.

These are values only: they are kept from run to run, and most runs need no more than those. How a
file comes by its judgement is in ``identify``, which needs far more code.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ecapture.binary.server import Server

Kind = Literal[
    "openssl",
    "boringssl",
    "libressl",
    "gnutls",
    "nss",
    "softoken",
    "go",
    "rustls",
    "mbedtls",
    "wolfssl",
    "mysqld",
    "postgres",
    "unknown",
    "bash",
    "zsh",
    "readline",
    "zle",
    "busybox",
    "dash",
    "fish",
]
NOT_TLS: Final = frozenset(
    ("mysqld", "postgres", "bash", "zsh", "readline", "zle", "busybox", "dash", "fish"),
)
"""Kinds of files that no connection's keys are sought in."""
KEYS_ONLY = frozenset({"softoken"})
"""Kinds that are no TLS implementations, but keep the keys of one."""
NAMELESS = "linked statically and stripped: its functions have no names"
"""Why the functions of such a file are looked for by what they do (``calls.locate``)."""
BUILT_IN = "compiled into the program, whose functions read and write for themselves"
"""The same of rustls (``calls.rustls``)."""
Linkage = Literal["shared", "executable", "static-hidden"]
How = Literal["dynsym", "symtab", "gopclntab", "label", "fingerprint", "content"]


class Library(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A TLS implementation, or a shell, found in a file.

    ``functions`` maps the names worth hooking to file offsets in bytes. ``visible`` says whether
    this program can show what passes through it today, ``reason`` why not. ``kind`` is "unknown"
    when there is TLS code that belongs to no implementation known here.

    ``convention`` says how the functions are called where that is not the platform's way
    (``binary.golang``); ``returns`` has the file offsets of the return instructions of functions
    whose returns must be probed there.

    ``through`` says of functions which other one all their calls pass through, so that one probe
    serves both. ``evidence`` says of functions that nothing names why they are held for them.

    ``copies`` has the file offsets of functions that the file has several of, besides that in
    ``functions``.

    ``also`` has what else the file is: a database server may have a TLS library linked into it.
    ``server`` says what such a server shows of its sessions (``binary.mysqld``).
    ``addresses`` are those of functions and variables, as the
    file was linked, where the kernel program must know them.
    """

    kind: Kind
    linkage: Linkage
    how: How
    visible: bool
    reason: str = ""
    version: str = ""
    machine: str = ""
    soname: str = ""
    build_id: str = ""
    functions: dict[str, int] = {}
    convention: str = ""
    returns: dict[str, tuple[int, ...]] = {}
    through: dict[str, str] = {}
    evidence: dict[str, str] = {}
    copies: dict[str, tuple[int, ...]] = {}
    also: tuple[Kind, ...] = ()
    server: Server | None = None
    addresses: dict[str, int] = {}
