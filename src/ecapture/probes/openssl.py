# SPDX-License-Identifier: Apache-2.0
"""OpenSSL 1.0.2 to 4.x and what shares its calls (BoringSSL, LibreSSL): plaintext.

``SSL_read``/``SSL_write`` return the count; the ``_ex`` pair (OpenSSL 1.1.1) returns 1 and writes
the count through its last argument; CPython and newer curl call only that pair. ``SSL_peek`` is
left alone on purpose: what is peeked at is read later and would be shown twice. The early-data
calls are built on the ``_ex`` pair in some releases; the kernel program shows such a call once.

OpenSSL's calls meet in an internal function, which ``BIO_f_ssl`` calls as well. ``binary.calls``
finds it; where all calls of an exported function pass through it, only the internal one is hooked.
In files that were stripped the same module finds what they have of all these, or, where a compiler
built them into their callers, the functions of BoringSSL that open and write records.
"""

from __future__ import annotations

from ecapture.plan import begin, descriptor, end, opened, read, send_file, write
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="tls",
    aliases=("openssl",),
    summary="plaintext of programs that use OpenSSL, BoringSSL or LibreSSL",
    kinds=("openssl", "boringssl", "libressl"),
    explicit_option="--libssl",
    required=("SSL_read", "SSL_write"),
    hooks=(
        # int SSL_read(SSL *ssl, void *buf, int num), SSL_write(SSL *ssl, const void *buf, int num)
        read("SSL_read"),
        write("SSL_write"),
        # int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes),
        # SSL_write_ex(..., size_t *written)
        read("SSL_read_ex", length=3, pointed=True),
        write("SSL_write_ex", length=3, pointed=True),
        # int ssl_read_internal(SSL *s, void *buf, size_t num, size_t *readbytes), since 1.1.1
        read("ssl_read_internal", length=3, pointed=True),
        write("ssl_write_internal", length=3, pointed=True),
        # int ssl_write_internal(..., size_t num, uint64_t flags, size_t *written), since 3.3
        write("ssl_write_internal+flags", length=4, pointed=True),
        # int SSL_read_early_data(SSL *s, void *buf, size_t num, size_t *readbytes), and for writing
        read("SSL_read_early_data", length=3, pointed=True),
        write("SSL_write_early_data", length=3, pointed=True),
        # ossl_ssize_t SSL_sendfile(SSL *s, int fd, off_t offset, size_t size, int flags), since 3.0
        send_file("SSL_sendfile"),
        # ssl_open_record_t tls_open_app_data(SSL *ssl, Span<uint8_t> *out, ...), of BoringSSL since
        # 2017; int tls_write_app_data(SSL *ssl, bool *out_needs_handshake,
        # size_t *out_bytes_written, Span<const uint8_t> in), since 2022
        opened("tls_open_app_data", span=1),
        write("tls_write_app_data", buffer=3, length=2, pointed=True),
        # int SSL_set_fd(SSL *ssl, int fd)
        descriptor("SSL_set_fd"),
        descriptor("SSL_set_rfd"),
        descriptor("SSL_set_wfd"),
        # void SSL_free(SSL *ssl), int SSL_clear(SSL *ssl)
        end("SSL_free"),
        end("SSL_clear", keeps_handle=True),
        # void tls_free(SSL *ssl), beside those two of BoringSSL
        end("tls_free"),
        # SSL *SSL_new(SSL_CTX *ctx), hooked in files where SSL_free was not found
        begin("SSL_new"),
    ),
)
