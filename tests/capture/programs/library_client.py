# SPDX-License-Identifier: Apache-2.0
"""A TLS client over any shared libssl: ``library_client.py FILE``, told what to do line by line.

``connect PORT`` and ``resume PORT`` (with the session of the last connection) shake hands, ``say``
writes one line and reads the answer, ``close`` ends the connection. Every command is answered with
a line: the protocol version or "ok". The library is driven through its own functions, so that one
program serves OpenSSL 1.0.2 to 4.0 and BoringSSL; their wheels carry all the libraries it needs.
"""

from __future__ import annotations

import ctypes
import socket
import sys


def opened(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    if hasattr(library, "SSL_library_init"):  # until 1.0.2
        library.SSL_library_init()
    for name in ("TLS_client_method", "SSLv23_client_method"):
        if hasattr(library, name):
            library.method = getattr(library, name)
            break
    library.method.restype = ctypes.c_void_p
    for name in ("SSL_CTX_new", "SSL_new", "SSL_get1_session", "SSL_get_version"):
        getattr(library, name).restype = ctypes.c_void_p
    library.SSL_get_version.restype = ctypes.c_char_p
    return library


class Client:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        method = ctypes.c_void_p(library.method())
        self.context = ctypes.c_void_p(library.SSL_CTX_new(method))
        self.session: ctypes.c_void_p | None = None

    def connect(self, port: str, *, resume: bool = False) -> str:
        self.socket = socket.create_connection(("127.0.0.1", int(port)))
        self.ssl = ctypes.c_void_p(self.library.SSL_new(self.context))
        assert self.library.SSL_set_fd(self.ssl, self.socket.fileno()) == 1
        if resume:
            assert self.library.SSL_set_session(self.ssl, self.session) == 1
        assert self.library.SSL_connect(self.ssl) == 1
        return self.library.SSL_get_version(self.ssl).decode()

    def say(self) -> str:
        assert self.library.SSL_write(self.ssl, b"hello\n", 6) == 6
        answer = ctypes.create_string_buffer(100)
        assert self.library.SSL_read(self.ssl, answer, 100) > 0
        # TLS 1.3: a session is there only once its ticket was read
        self.session = ctypes.c_void_p(self.library.SSL_get1_session(self.ssl))
        return "ok"

    def close(self) -> str:
        self.library.SSL_shutdown(self.ssl)
        self.library.SSL_free(self.ssl)
        self.socket.close()
        return "ok"


client = Client(opened(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    if command == "resume":
        print(client.connect(*words, resume=True), flush=True)
    else:
        print(getattr(client, command)(*words), flush=True)
