# SPDX-License-Identifier: Apache-2.0
"""Which hooks yield the keys of a file's TLS library, and what the kernel programs must know of it.

1. The log function, which its library calls with every secret (OpenSSL since 1.1.1, BoringSSL).
2. OpenSSL 1.0.2 and 1.1.0 have none: there the function that makes master secrets is hooked, and
   calls that read and write, because a resumed session makes no new master secret.
3. NSS hands its log function keys that only softoken knows the bytes of: both libraries are hooked.
4. Those calls are hooked as well in files that are in use already, for the connections that are
   older than the hooks. Once for each connection is read what its object keeps.
5. Go and rustls tell secrets without an object of a library: see ``told``.

Invariants: a probe is planted only where the bytes are those that were seen when the place was
proven to be the start of a function; files that say the same have one row, as the copies of a
library in many containers do; what cannot be had of a file is said once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection

from ecapture._wire import (
    SECRET_ROW,
    SECRET_ROWS,
    SECRET_SLOTS,
    Shape,
)
from ecapture.binary.cache import identity
from ecapture.binary.elf import ElfFile
from ecapture.binary.library import Library
from ecapture.binary.nss import VALUE_SETTER
from ecapture.binary.secrets.locate import locate
from ecapture.binary.secrets.remembered import Located, SitesCache
from ecapture.binary.secrets.sites import Library as Owner
from ecapture.binary.secrets.sites import SecretSites, Site
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.feature import feature
from ecapture.kernel.parameters import packed_chain
from ecapture.kernel.told import KINDS, TOLD, TellingKeys, label_places
from ecapture.plan import Hook

_log = logging.getLogger(__name__)

LOG = Hook("(log function)", Shape.SECRET)
MASTER = Hook("tls1_generate_master_secret", Shape.MASTER)
KEPT = Hook("(any call)", Shape.KEPT)
NSS_LOG = Hook("(log function of NSS)", Shape.NSS_SECRET)
NSS_VALUE = Hook("(softoken)", Shape.NSS_VALUE)

_CALLS = ("SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex")
_INNER_CALLS = ("ssl_read_internal", "ssl_write_internal", "ssl_write_internal+flags")
_QUICK_BYTES = 16 << 20
_LONGEST_CHAIN = 4
# TLS_ST_OK of enum OSSL_HANDSHAKE_STATE (include/openssl/ssl.h since 1.1.0), SSL_ST_OK of 1.0.2
_FINISHED, _FINISHED_1_0 = 1, 3


def key_hooks(kinds: Collection[str] = ()) -> tuple[Hook, ...]:
    """All that this kernel can hook for the keys of these kinds of libraries (``binary.library``).

    Without attach cookies only the log functions.
    """
    told = (TOLD,) if set(kinds) & set(KINDS) else ()
    if told and set(kinds) <= set(KINDS):
        return told
    nss = (NSS_LOG, NSS_VALUE) if "nss" in kinds else ()
    logs = (LOG, MASTER, KEPT) if feature("attach_cookie") else (LOG,)
    return (*logs, *nss, *told)


class Keys:
    """Finds the places of one file after another, and tells the programs of each. Thread-safe."""

    def __init__(
        self, programs: Programs, cache: SitesCache, telling: TellingKeys | None = None
    ) -> None:
        self._programs = programs
        self._cache = cache
        self._telling = telling
        self._lock = threading.Lock()
        self._hook_rows = {hook.shape: row for row, hook in enumerate(programs.hooks)}
        self._rows: dict[bytes, int] = {}
        self._told: set[tuple[str, str]] = set()

    def quick(self, status: os.stat_result, library: Library) -> bool:
        """Whether ``places`` will answer in some hundredths of a second."""
        if self._telling is not None and library.kind in KINDS:
            return self._telling.quick(status, library)
        with self._lock:
            return status.st_size <= _QUICK_BYTES or self._cache.lookup(status)[0]

    def places(self, path: str, name: str, library: Library, *, older: bool) -> list[Place]:
        """Where to hook the file; ``older``: it may have connections by now, so these as well.

        Raises NotExecutable if the file contradicts itself, TargetNotFound if it is gone.
        """
        if library.kind == "softoken":
            return self._values(path, name, library)
        if self._telling is not None and library.kind in KINDS:
            return self._telling.places(path, name, library)
        with ElfFile(path) as elf:
            key = identity(elf.status)
            found = self._located(elf)
            if found.sites is None:
                self._say(key, "%s: its keys cannot be read: %s", name, found.reason)
                return []
            sites = found.sites
            if any(not _unchanged(elf, site) for site in (sites.log, sites.master)):
                self._say(key, "%s: its keys cannot be read: it is not the file it was", name)
                return []
            old = _before_1_1(elf)
        if "client_random" not in sites.chains:
            reason = "; ".join(sites.notes) or "no walk to the client random"
            self._say(key, "%s: its keys cannot be joined with connections: %s", name, reason)
        row = self._row(secret_row(sites, old=old))
        if row < 0:
            self._say(key, "%s: its keys cannot be read: there are too many different files", name)
            return []
        wanted = self._wanted(key, name, sites, library, older=older, old=old)
        return [
            Place(self._hook_rows[shape], offset, file_row=row)
            for shape, offset in wanted
            if shape in self._hook_rows
        ]

    def _values(self, path: str, name: str, library: Library) -> list[Place]:
        # One program serves all files of this kind.
        offset = library.functions.get(VALUE_SETTER)
        if offset is None:
            self._say(path, "%s: the keys of NSS cannot be read: %s", name, library.reason)
            return []
        return [Place(self._hook_rows[Shape.NSS_VALUE], offset, file_row=0)]

    def save(self) -> None:
        """Keeps what was learned for later runs."""
        with self._lock:
            self._cache.save()
        if self._telling is not None:
            self._telling.save()

    def _located(self, elf: ElfFile) -> Located:
        with self._lock:
            _known, found = self._cache.lookup(elf.status)
        if found is not None:
            return found
        found = Located.of(locate(elf))
        after = os.fstat(elf.fileno())
        if identity(after) == identity(elf.status):
            with self._lock:
                self._cache.remember(after, found)
        return found

    def _row(self, content: bytes) -> int:
        # -1: there are more ways than rows
        limit = SECRET_ROWS if feature("attach_cookie") else SECRET_SLOTS
        with self._lock:
            known = self._rows.get(content)
            if known is not None:
                return known
            row = len(self._rows)
            if row >= limit:
                return -1
            self._programs.set_row("secret_rows", row, content)
            self._rows[content] = row
            return row

    def _wanted(
        self,
        key: str,
        name: str,
        sites: SecretSites,
        library: Library,
        *,
        older: bool,
        old: bool,
    ) -> list[tuple[Shape, int]]:
        wanted = []
        if sites.log is not None:
            shape = Shape.NSS_SECRET if sites.library is Owner.NSS else Shape.SECRET
            wanted.append((shape, sites.log.offset))
        if sites.master is not None:
            wanted.append((Shape.MASTER, sites.master.offset))
        if sites.log is None and Shape.KEPT not in self._hook_rows:
            self._say(
                key,
                "%s: its keys cannot be read: for OpenSSL before 1.1.1 the kernel must have attach"
                " cookies (Linux 5.15)",
                name,
            )
        if older or sites.log is None:
            reason = _why_not_kept(sites, library, old=old)
            if not reason:
                wanted += [(Shape.KEPT, offset) for offset in _any_calls(library)]
            elif older:
                _log.info("%s: keys of connections that exist are not read: %s", name, reason)
        return wanted

    def _say(self, key: str, text: str, *words: str) -> None:
        with self._lock:
            if (key, text) in self._told:
                return
            self._told.add((key, text))
        _log.warning(text, *words)


def _unchanged(elf: ElfFile, site: Site | None) -> bool:
    return site is None or elf.read(site.offset, len(site.head)) == site.head != b""


def _before_1_1(elf: ElfFile) -> bool:
    """Whether it is OpenSSL 1.0.2 or older: a later one calls that function SSL_get_state."""
    names = ("SSL_state", "SSL_get_state")
    there = [elf.symbol(name) is not None or name in elf.symtab(names) for name in names]
    return there == [True, False]


def _why_not_kept(sites: SecretSites, library: Library, *, old: bool) -> str:
    """Why secrets cannot be read from the objects of connections; empty if they can."""
    if sites.library is not Owner.OPENSSL:
        return "only OpenSSL keeps what the first secrets follow from"
    missing = [
        name for name in ("client_random", "version", "handshake_state") if name not in sites.chains
    ]
    if "in_init" not in sites.chains and not old:
        missing.append("in_init")
    if not {"master_key", "handshake_secret"} & set(sites.chains):
        missing.append("master_key")
    if missing:
        return f"no walk to {', '.join(missing)}"
    return "" if _any_calls(library) else "its functions have no names"


def _any_calls(library: Library) -> list[int]:
    """Where calls with an object pass: by exported functions, else by those that they share."""
    for names in (_CALLS, _INNER_CALLS):
        if found := [library.functions[name] for name in names if name in library.functions]:
            return found
    return []


def secret_row(sites: SecretSites, *, old: bool = False) -> bytes:
    """What the kernel programs must know of a file (struct ec_secret_row); ``old``: before 1.1."""
    chains = dict(sites.chains)
    if "handshake_secret" in chains and "exporter" in chains and sites.library is Owner.OPENSSL:
        chains["schedule"] = chains["handshake_secret"]
    places, numbers = label_places(sites.labels)
    return SECRET_ROW.pack(
        *(
            packed_chain(chains.get(name))
            for name in (
                "client_random",
                "master_key",
                "schedule",
                "exporter",
                "version",
                "object_type",
                "handshake_state",
                "in_init",
            )
        ),
        _FINISHED_1_0 if old else _FINISHED,
        places,
        numbers,
    )
