# SPDX-License-Identifier: Apache-2.0
"""A TLS client over pyOpenSSL, told what to do line by line.

``connect PORT`` shakes hands and answers with the version, ``say`` writes a line and answers with
what came back. The OpenSSL is the one that the package cryptography carries in its only extension
module, under names that are not exported.
"""

from __future__ import annotations

import socket
import sys

from OpenSSL import SSL

context = SSL.Context(SSL.TLS_CLIENT_METHOD)
print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    if command == "connect":
        connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", int(words[0]))))
        connection.set_connect_state()
        connection.do_handshake()
        print(connection.get_protocol_version_name(), flush=True)
    else:
        connection.sendall(b"hello\n")
        print(connection.recv(100).decode().strip(), flush=True)
