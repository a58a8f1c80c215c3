# SPDX-License-Identifier: Apache-2.0
"""A client over GnuTLS, told what to do line by line; every command is answered with a line.

``connect PORT VERSION`` shakes hands. Then ``say TEXT`` writes a line and reads one, and ``padded
TEXT`` does by gnutls_record_send2, ``corked TEXT,TEXT...`` writes several lines under cork and
reads as many, ``packet TEXT`` reads by gnutls_record_recv_packet, ``exchange OUT IN`` writes what
is in one file and what is read until the end into another; ``close``.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from pathlib import Path

gnutls = ctypes.CDLL("libgnutls.so.30")
# GNUTLS_CLIENT, GNUTLS_CRD_CERTIFICATE, GNUTLS_RECORD_WAIT, GNUTLS_SHUT_WR
CLIENT, CERTIFICATE, WAIT, END = 2, 1, 1, 1
# GNUTLS_E_AGAIN, GNUTLS_E_PREMATURE_TERMINATION
AGAIN, CUT_OFF = -28, -110
PADDING = 100

for name in ("send", "send2", "recv", "recv_packet"):
    getattr(gnutls, f"gnutls_record_{name}").restype = ctypes.c_ssize_t


class Datum(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_uint))


class Client:
    def connect(self, port: str, version: str) -> str:
        self.socket = socket.create_connection(("127.0.0.1", int(port)))
        self.session, credentials = ctypes.c_void_p(), ctypes.c_void_p()
        assert gnutls.gnutls_init(ctypes.byref(self.session), CLIENT) == 0
        wanted = f"NORMAL:-VERS-ALL:+VERS-TLS{version}".encode()
        assert gnutls.gnutls_priority_set_direct(self.session, wanted, None) == 0
        assert gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(credentials)) == 0
        assert gnutls.gnutls_credentials_set(self.session, CERTIFICATE, credentials) == 0
        fd = self.socket.fileno()
        gnutls.gnutls_transport_set_int2(self.session, fd, fd)
        assert gnutls.gnutls_handshake(self.session) == 0
        return "ok"

    def say(self, text: str) -> str:
        self._write(text.encode() + b"\n")
        return self._lines(1)

    def padded(self, text: str) -> str:
        line = text.encode() + b"\n"
        size = ctypes.c_size_t(len(line))
        sent = gnutls.gnutls_record_send2(self.session, line, size, ctypes.c_size_t(PADDING), 0)
        assert sent == len(line)
        return self._lines(1)

    def corked(self, texts: str) -> str:
        lines = [text.encode() + b"\n" for text in texts.split(",")]
        gnutls.gnutls_record_cork(self.session)
        for line in lines:
            self._write(line)
        assert gnutls.gnutls_record_uncork(self.session, WAIT) == sum(map(len, lines))
        return self._lines(len(lines))

    def packet(self, text: str) -> str:
        self._write(text.encode() + b"\n")
        packet, datum = ctypes.c_void_p(), Datum()
        size = AGAIN
        while size == AGAIN:
            size = gnutls.gnutls_record_recv_packet(self.session, ctypes.byref(packet))
        for _ in range(2):
            gnutls.gnutls_packet_get(packet, ctypes.byref(datum), None)
        assert size == datum.size == len(text) + 1
        answer = ctypes.string_at(datum.start, datum.size)
        gnutls.gnutls_packet_deinit(packet)
        return answer.decode().strip()

    def exchange(self, given: str, taken: str) -> str:
        self._write(Path(given).read_bytes())
        answer = b"".join(iter(self._read, b""))
        Path(taken).write_bytes(answer)
        return str(len(answer))

    def close(self) -> str:
        gnutls.gnutls_bye(self.session, END)
        gnutls.gnutls_deinit(self.session)
        self.socket.close()
        return "ok"

    def _write(self, content: bytes) -> None:
        done = 0
        while done < len(content):
            left = content[done:]
            sent = gnutls.gnutls_record_send(self.session, left, ctypes.c_size_t(len(left)))
            assert sent > 0, sent
            done += sent

    def _read(self) -> bytes:
        buffer = ctypes.create_string_buffer(1 << 16)
        count = AGAIN
        while count == AGAIN:  # a session ticket is no data
            count = gnutls.gnutls_record_recv(self.session, buffer, ctypes.c_size_t(1 << 16))
        assert count >= 0 or count == CUT_OFF, count
        return buffer.raw[: max(count, 0)]

    def _lines(self, count: int) -> str:
        answer = b""
        while answer.count(b"\n") < count:
            answer += self._read()
        return ",".join(answer.decode().split())


client = Client()
print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    print(getattr(client, command)(*words), flush=True)
