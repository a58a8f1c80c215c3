# SPDX-License-Identifier: Apache-2.0
"""NSS 3.12 and later, as Firefox, Thunderbird and others have it: plaintext.

These are functions inside libssl3 that ``binary.nss`` found, not the functions of NSPR that
programs call: those move the bytes of files, pipes and bare sockets as well, and of descriptors
whose TLS is switched off. The handle is the ``sslSocket``, which layers pushed above it (Firefox
has one) do not change. ``ssl_SecureRead`` and ``ssl_SecureWrite`` usually only call the other two,
and are then not found.
"""

from __future__ import annotations

from ecapture.plan import end, read, write
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="nss",
    aliases=("nspr",),
    summary="plaintext of programs that use NSS, such as Firefox and Thunderbird",
    # softoken has no plaintext, but the bytes of keys
    kinds=("nss", "softoken"),
    explicit_option="--nspr",
    required=("ssl_SecureRecv", "ssl_SecureSend"),
    hooks=(
        # int ssl_SecureRecv(sslSocket *ss, unsigned char *buf, int len, int flags)
        read("ssl_SecureRecv", peeks=True),
        # int ssl_SecureSend(sslSocket *ss, const unsigned char *buf, int len, int flags)
        write("ssl_SecureSend"),
        # int ssl_SecureRead(sslSocket *ss, unsigned char *buf, int len)
        read("ssl_SecureRead"),
        write("ssl_SecureWrite"),
        # int ssl_SecureClose(sslSocket *ss)
        end("ssl_SecureClose"),
    ),
)
