# SPDX-License-Identifier: Apache-2.0
"""One end of connections by rustls: the package rtls, which has the interface of Python's ssl.

Usage: rustls_peer.py FOLDER, which has the package. Then lines: ``connect PORT VERSION`` talks to a
server on loopback that answers lines; ``serve CERTIFICATE KEY VERSION`` prints a port and answers
one line of one client with the same line. Each ends with a line that names the version.
"""

import socket
import sys

sys.path.insert(0, sys.argv[1])
import rtls


def versioned(context, version):
    context.minimum_version = context.maximum_version = getattr(
        rtls.TLSVersion, "TLSv" + version.replace(".", "_")
    )
    return context


def connect(port, version):
    context = versioned(rtls.SSLContext(rtls.PROTOCOL_TLS_CLIENT), version)
    context.check_hostname = False
    context.verify_mode = rtls.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", int(port))) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"a line\n")
        assert connection.recv(100)
        return connection.version()


def serve(certificate, key, version):
    context = versioned(rtls.SSLContext(rtls.PROTOCOL_TLS_SERVER), version)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        plain, _address = listener.accept()
        with plain, context.wrap_socket(plain, server_side=True) as connection:
            connection.sendall(connection.recv(100))
            return connection.version()


print("ready", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    print({"connect": connect, "serve": serve}[command](*words), flush=True)
