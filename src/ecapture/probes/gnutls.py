# SPDX-License-Identifier: Apache-2.0
"""GnuTLS 3.x: plaintext.

All calls return ssize_t. Some are built on others (``gnutls_record_send`` on
``gnutls_record_send2``, ``gnutls_record_send_file`` on ``gnutls_record_send``); the kernel program
shows such a call once. What is written while a session is corked is shown then, and not again when
it is sent. ``gnutls_record_send_early_data`` only keeps bytes: if there is a session to resume, the
handshake sends them by ``gnutls_record_send``. After GNUTLS_E_AGAIN a program may ask to go on with
``gnutls_record_send(session, NULL, 0)``: the library kept the bytes, they are nowhere in the call,
and the event says that they could not be read.
"""

from __future__ import annotations

from ecapture.plan import (
    cover,
    descriptor,
    end,
    packet,
    packet_content,
    read,
    send_file,
    write,
)
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="gnutls",
    aliases=("gnu",),
    summary="plaintext of programs that use GnuTLS",
    kinds=("gnutls",),
    explicit_option="--gnutls",
    required=("gnutls_record_recv", "gnutls_record_send"),
    hooks=(
        # ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size)
        read("gnutls_record_recv", wide=True),
        # ... (session, void *data, size_t data_size, unsigned char *seq)
        read("gnutls_record_recv_seq", wide=True),
        # ssize_t gnutls_record_recv_early_data(session, void *data, size_t), since 3.6.5
        read("gnutls_record_recv_early_data", wide=True),
        # ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size)
        write("gnutls_record_send", wide=True),
        # ... (session, data, size_t data_size, size_t pad, unsigned flags), since 3.6.3
        write("gnutls_record_send2", wide=True),
        # ... (session, data, size_t data_size, const gnutls_range_st *range)
        write("gnutls_record_send_range", wide=True),
        # ssize_t gnutls_record_send_file(session, int fd, off_t *offset, size_t count), since 3.7.3
        send_file("gnutls_record_send_file"),
        # ssize_t gnutls_record_recv_packet(session, gnutls_packet_t *packet),
        # void gnutls_packet_get(gnutls_packet_t packet, gnutls_datum_t *data, unsigned char *seq)
        packet("gnutls_record_recv_packet"),
        packet_content("gnutls_packet_get"),
        # int gnutls_record_uncork(session, unsigned flags)
        cover("gnutls_record_uncork"),
        # void gnutls_transport_set_int2(gnutls_session_t session, int recv_fd, int send_fd)
        descriptor("gnutls_transport_set_int2"),
        # void gnutls_deinit(gnutls_session_t session)
        end("gnutls_deinit"),
    ),
)
