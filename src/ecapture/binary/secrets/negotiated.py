# SPDX-License-Identifier: Apache-2.0
"""Where a library keeps what two peers agreed on: the protocol's version and the cipher suite.

Read out of the accessors that the library exports, in a few milliseconds, so that no table of
versions is needed. A library without such accessors, or with one that is not understood, has no
answer: then version and cipher are not known, rather than guessed.
"""

from __future__ import annotations

from typing import NamedTuple

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets import chains as walks
from ecapture.binary.secrets.evaluate import Evaluator
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Chain

_MACHINES = ("x86_64", "aarch64")
_GNUTLS = "gnutls_protocol_get_version"


class Negotiated(NamedTuple):
    """Walks from the library's connection object, each ``None`` where it is not known.

    ``version`` (4 bytes) is 0x0304 for TLS 1.3 (RFC 8446, section 4.2.1) or, of GnuTLS, its
    ``gnutls_protocol_t``. Of ``cipher`` the low two bytes are the suite's number on the wire. Where
    there is an ``object_type`` the walks hold only for objects of type 0.
    """

    version: Chain | None = None
    cipher: Chain | None = None
    object_type: Chain | None = None


def negotiated(elf: ElfFile) -> Negotiated:
    """Return where the TLS library in this file keeps what was negotiated.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.machine not in _MACHINES:
        return Negotiated()
    names = (*walks.ACCESSORS, _GNUTLS)
    exported = {name: found.address for name in names if (found := elf.symbol(name)) is not None}
    if "SSL_version" not in exported and _GNUTLS not in exported:
        return Negotiated()
    image = Image(elf)
    evaluator = Evaluator(image, Functions(image))
    if _GNUTLS in exported:
        return Negotiated(walks.number_field(evaluator.trace(exported[_GNUTLS])))
    chains = walks.accessor_chains(evaluator, exported)
    if "version" not in chains:
        return Negotiated()
    chains |= walks.implied(chains)
    return Negotiated(chains["version"], chains.get("cipher_id"), chains.get("object_type"))
