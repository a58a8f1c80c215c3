# SPDX-License-Identifier: Apache-2.0
"""A TLS client over the OpenSSL inside an old module of cryptography: ``cffi_client.py FILE``.

Told what to do line by line: ``connect PORT`` and ``resume PORT`` (with the session of the last
connection) shake hands and answer with the version, ``say`` writes a line and answers with what
came back, ``close`` ends the connection. The module's Python around it is of another age, so its
bindings are used as they are.
"""

from __future__ import annotations

import importlib.util
import socket
import sys

found = importlib.util.spec_from_file_location("_openssl", sys.argv[1])
module = importlib.util.module_from_spec(found)
found.loader.exec_module(module)
lib, ffi = module.lib, module.ffi
lib.SSL_library_init()
context = lib.SSL_CTX_new(lib.SSLv23_client_method())
session = ffi.NULL


def connect(port: str, *, resumed: bool = False) -> str:
    global connection, ssl  # noqa: PLW0603 - the state of a small program
    connection = socket.create_connection(("127.0.0.1", int(port)))
    ssl = lib.SSL_new(context)
    assert lib.SSL_set_fd(ssl, connection.fileno()) == 1
    if resumed:
        assert lib.SSL_set_session(ssl, session) == 1
    lib.SSL_set_connect_state(ssl)
    assert lib.SSL_do_handshake(ssl) == 1
    assert not resumed or lib.SSL_session_reused(ssl)
    return ffi.string(lib.SSL_get_version(ssl)).decode()


def resume(port: str) -> str:
    return connect(port, resumed=True)


def say() -> str:
    global session  # noqa: PLW0603
    assert lib.SSL_write(ssl, b"hello\n", 6) == 6
    answer = ffi.new("char[100]")
    count = lib.SSL_read(ssl, answer, 100)
    session = lib.SSL_get1_session(ssl)
    return ffi.buffer(answer, count)[:].decode().strip()


def close() -> str:
    lib.SSL_shutdown(ssl)
    lib.SSL_free(ssl)
    connection.close()
    return "ok"


print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    print(
        {"connect": connect, "resume": resume, "say": say, "close": close}[command](*words),
        flush=True,
    )
