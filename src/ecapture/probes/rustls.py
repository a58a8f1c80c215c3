# SPDX-License-Identifier: Apache-2.0
"""rustls, the TLS library of programs that are written in Rust: keys.

It is compiled into each program, stripped and optimised with it, so that no function that reads or
writes plaintext is left to be recognised: they are inlined into whatever the program does with its
bytes, and the conventions by which Rust passes arguments are no contract. What remains is where
secrets are told (``binary.secrets.rustls``), so a capture of packets can be decrypted.
"""

from __future__ import annotations

from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="rustls",
    summary="keys of programs that are written in Rust",
    kinds=("rustls",),
    explicit_option="--elfpath",
    required=("dyn rustls::KeyLog",),
    hooks=(),
)
