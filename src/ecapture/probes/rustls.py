# SPDX-License-Identifier: Apache-2.0
"""rustls 0.23 and later, the TLS library of programs that are written in Rust: plaintext.

It is compiled into each program, and what a program calls to read and write into whatever it does
with its bytes. What remains in every build, stripped or not, are the methods that encrypt and
decrypt one record, of which each cipher suite has its own (``binary.calls.rustls``). So bytes are
shown as records carry them: those that are read when they arrive, not when the program asks.
"""

from __future__ import annotations

from ecapture._wire import Direction, Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="rustls",
    summary="plaintext of programs that are written in Rust",
    kinds=("rustls",),
    explicit_option="--elfpath",
    required=("MessageEncrypter::encrypt", "tls13::MessageDecrypter::decrypt"),
    hooks=(
        # fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, seq: u64) -> Result<..>
        Hook("MessageEncrypter::encrypt", Shape.RUST_ENCRYPT, Direction.WRITE),
        # fn decrypt<'a>(&mut self, msg: InboundOpaqueMessage<'a>, seq: u64) -> Result<..>
        Hook("tls13::MessageDecrypter::decrypt", Shape.RUST_DECRYPT),
        Hook("tls12::MessageDecrypter::decrypt", Shape.RUST_DECRYPT_OLDER),
    ),
)
