# SPDX-License-Identifier: Apache-2.0
"""What the search for a library's secrets comes to: places for probes, and walks to fields.

Values only. Whoever plants probes reads these; whoever finds them (``locate``) builds these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class NotLocated:
    """There is no place in the file where secrets could be read, or none that is certain."""

    reason: str


class Library(StrEnum):
    """Whose code it is: that decides what the chains of a site mean."""

    OPENSSL = "openssl"
    BORINGSSL = "boringssl"
    GNUTLS = "gnutls"
    NSS = "nss"


class How(StrEnum):
    """How something was learned, the surest first."""

    SYMBOL = "symbol"
    LABEL = "label"  # calls that hand over labels lead there
    EVALUATED = "evaluated"  # read out of the code that uses it
    ARITHMETIC = "arithmetic"  # stands at a fixed distance from something evaluated


class Proof(StrEnum):
    """Why a probe may be planted at an address."""

    FRAME_TABLE = "frame-table"  # the unwinder's table says that a function starts there
    CALL_TARGET = "call-target"  # no such table, but direct calls lead there
    POINTER = "pointer"  # nor calls, but the loader is told to make a pointer to it
    FUNCTION_TABLE = "function-table"  # that of Go's runtime


@dataclass(frozen=True, slots=True)
class Site:
    """The first instruction of a function.

    ``address`` is as linked, ``offset`` is where that is in the file (what a uprobe wants).
    ``labels`` are those that calls were seen to hand over, ``head`` the bytes at the address, by
    which a remembered site is verified.
    """

    address: int
    offset: int
    how: How
    proof: Proof
    labels: tuple[str, ...]
    head: bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """How to walk from a pointer to a field.

    Load a pointer at each offset but the last, add the last one, and there are ``length`` bytes.
    """

    offsets: tuple[int, ...]
    length: int
    how: How

    def __str__(self) -> str:
        return "+".join(f"{offset:x}" for offset in self.offsets)


@dataclass(frozen=True, slots=True)
class SecretSites:
    """Where a library's secrets can be read.

    ``log`` is the internal function ``(object, label, secret, length)`` that is called with every
    secret, whether or not a key log was asked for; its first argument is the object that chains
    start from, the same that SSL_read and SSL_write get (an NSS or GnuTLS session likewise).
    ``labels`` are the addresses of the label strings, as linked: the second argument is one of
    them (or another copy of the same text). ``master`` is ``tls1_generate_master_secret(object,
    out, ...)`` of OpenSSL 1.0.2 and 1.1.0, which have no log function.

    ``chains`` by name, each only where it is known:

    ========================  ===================================================================
    client_random             32 bytes
    version                   protocol version (4 bytes)
    object_type               what an SSL object is (4 bytes): the other walks of SSL_read's and
                              SSL_write's argument hold only where this is 0, which is TLS
    is_server                 0 or 1 (4 bytes)
    session, rbio             pointers; NULL before there is one
    cipher_id                 cipher suite (4 bytes, the low two count; BoringSSL: 2 bytes)
    master_key                48 bytes, all zero before there is one
    handshake_state           position in the handshake (4 bytes)
    in_init                   not 0 while a handshake is in progress (4 bytes)
    client_application        TLS 1.3 application traffic secrets, the latest ones after a key
    server_application        update; as long as the cipher suite's hash, 64 bytes reserved
    exporter                  exporter secret of TLS 1.3
    handshake_secret          handshake secret and transcript hash up to ServerHello, from which
    handshake_hash            the handshake traffic secrets follow
    read_application          BoringSSL: the current secrets by direction rather than by side;
    write_application         the byte behind their 48 says how long they are
    ========================  ===================================================================

    ``notes`` say what was looked for in vain, or dropped because two sources disagreed.
    """

    library: Library
    log: Site | None
    master: Site | None
    labels: Mapping[str, tuple[int, ...]]
    chains: Mapping[str, Chain]
    notes: tuple[str, ...] = field(default=())
