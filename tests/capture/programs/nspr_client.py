# SPDX-License-Identifier: Apache-2.0
"""A client over NSPR and NSS, told what to do line by line; every command is answered with a line.

``connect PORT VERSION`` shakes hands by TLS, ``bare PORT VERSION`` connects with a TLS layer that
is switched off, ``plain PORT VERSION`` without one. On what was connected last: ``say TEXT`` writes
a line and reads one, ``peek TEXT`` looks at the answer before it reads it, ``exchange OUT IN``
writes what is in one file and what is read until the end into another, ``close``. ``file PATH
TEXT`` writes a file and reads it. All bytes go through the same functions of NSPR.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from pathlib import Path

nspr = ctypes.CDLL("libnspr4.so")
nss = ctypes.CDLL("libnss3.so")
tls = ctypes.CDLL("libssl3.so")

SECURITY, AS_CLIENT = 1, 5  # SSL_SECURITY, SSL_HANDSHAKE_AS_CLIENT (lib/ssl/ssl.h)
PEEK, FOREVER = 2, 0xFFFFFFFF  # PR_MSG_PEEK, PR_INTERVAL_NO_TIMEOUT
READ_WRITE, CREATE = 4, 8  # PR_RDWR, PR_CREATE_FILE
VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}

for function in (nspr.PR_ImportTCPSocket, nspr.PR_Open, tls.SSL_ImportFD):
    function.restype = ctypes.c_void_p
accept = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)


class VersionRange(ctypes.Structure):
    _fields_ = (("first", ctypes.c_uint16), ("last", ctypes.c_uint16))


class Client:
    def __init__(self) -> None:
        assert nss.NSS_NoDB_Init(None) == 0
        assert tls.NSS_SetDomesticPolicy() == 0

    def plain(self, port: str, _version: str) -> str:
        self.socket = socket.create_connection(("127.0.0.1", int(port)))
        self.fd = ctypes.c_void_p(nspr.PR_ImportTCPSocket(self.socket.detach()))
        return "ok"

    def bare(self, port: str, version: str) -> str:
        self.plain(port, version)
        self.fd = ctypes.c_void_p(tls.SSL_ImportFD(None, self.fd))
        assert tls.SSL_OptionSet(self.fd, SECURITY, 0) == 0
        return "ok"

    def connect(self, port: str, version: str) -> str:
        self.plain(port, version)
        self.fd = ctypes.c_void_p(tls.SSL_ImportFD(None, self.fd))
        assert tls.SSL_OptionSet(self.fd, AS_CLIENT, 1) == 0
        wanted = VersionRange(VERSIONS[version], VERSIONS[version])
        assert tls.SSL_VersionRangeSet(self.fd, ctypes.byref(wanted)) == 0
        assert tls.SSL_AuthCertificateHook(self.fd, accept, None) == 0
        assert tls.SSL_SetURL(self.fd, b"localhost") == 0
        assert tls.SSL_ResetHandshake(self.fd, 0) == 0
        assert tls.SSL_ForceHandshake(self.fd) == 0, nspr.PR_GetError()
        return "ok"

    def say(self, text: str) -> str:
        self._write(text.encode() + b"\n")
        answer = self._read(100)
        while not answer.endswith(b"\n"):
            answer += self._read(100)
        return answer.decode().strip()

    def peek(self, text: str) -> str:
        self._write(text.encode() + b"\n")
        buffer = ctypes.create_string_buffer(5)
        assert nspr.PR_Recv(self.fd, buffer, 5, PEEK, FOREVER) == 5
        answer = ctypes.create_string_buffer(100)
        count = nspr.PR_Recv(self.fd, answer, 100, 0, FOREVER)
        assert count == len(text) + 1
        assert answer.raw[:5] == buffer.raw
        return answer.raw[:count].decode().strip()

    def exchange(self, given: str, taken: str) -> str:
        self._write(Path(given).read_bytes())
        answer = b"".join(iter(lambda: self._read(1 << 20), b""))
        Path(taken).write_bytes(answer)
        return str(len(answer))

    def file(self, path: str, text: str) -> str:
        fd = ctypes.c_void_p(nspr.PR_Open(path.encode(), READ_WRITE | CREATE, 0o600))
        assert nspr.PR_Write(fd, text.encode(), len(text)) == len(text)
        assert nspr.PR_Seek(fd, 0, 0) == 0
        answer = ctypes.create_string_buffer(100)
        assert nspr.PR_Read(fd, answer, 100) == len(text)
        nspr.PR_Close(fd)
        return answer.value.decode()

    def close(self) -> str:
        nspr.PR_Close(self.fd)
        return "ok"

    def _write(self, content: bytes) -> None:
        assert nspr.PR_Write(self.fd, content, len(content)) == len(content)

    def _read(self, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        count = nspr.PR_Read(self.fd, buffer, size)
        assert count >= 0, nspr.PR_GetError()
        return buffer.raw[:count]


client = Client()
print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    print(getattr(client, command)(*words), flush=True)
