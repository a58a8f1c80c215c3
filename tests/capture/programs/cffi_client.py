# SPDX-License-Identifier: Apache-2.0
"""A TLS client over the OpenSSL inside a module of cryptography: ``cffi_client.py FILE``.

Told what to do line by line: ``connect PORT`` and ``resume PORT`` (with the session of the last
connection) shake hands and answer with the version, ``say`` writes a line and answers with what
came back, ``close`` ends the connection. The Python around an older module is of another age, so
its bindings are used as they are.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path

name = Path(sys.argv[1]).name.partition(".")[0]
found = importlib.util.spec_from_file_location(name, sys.argv[1])
module = importlib.util.module_from_spec(found)
found.loader.exec_module(module)
bindings = getattr(module, "_openssl", module)  # in newer ones they are a part of the module
lib, ffi = bindings.lib, bindings.ffi
if hasattr(lib, "SSL_library_init"):
    lib.SSL_library_init()
method = "TLS_client_method" if hasattr(lib, "TLS_client_method") else "SSLv23_client_method"
context = lib.SSL_CTX_new(getattr(lib, method)())
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
