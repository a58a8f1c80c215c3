# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 server behind TLS that keeps what went over each connection, byte by byte.

``exact_server.py CERTIFICATE KEY KEYS FOLDER PAGE`` prints its port. Every request is answered:
/page with the content of the file PAGE, all else with nothing. What a connection brought and took
stands in FOLDER as PORT.in and PORT.out, by the port of the client.
"""

from __future__ import annotations

import pathlib
import socket
import ssl
import sys
import threading

certificate, key, keys, folder, page = sys.argv[1:]
content = pathlib.Path(page).read_bytes()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.keylog_filename = keys
END = b"\r\n\r\n"


def answer(request: bytes) -> bytes:
    body = content if request.startswith(b"GET /page ") else b""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def serve(raw: socket.socket, port: int) -> None:
    came, went, answered = b"", b"", 0
    with context.wrap_socket(raw, server_side=True) as connection:
        while part := connection.recv(1 << 16):
            came += part
            for request in came.split(END)[answered:-1]:
                out = answer(request)
                connection.sendall(out)
                went += out
                answered += 1
            pathlib.Path(folder, f"{port}.in").write_bytes(came)
            pathlib.Path(folder, f"{port}.out").write_bytes(went)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        raw, (_, port) = listener.accept()
        threading.Thread(target=serve, args=(raw, port), daemon=True).start()


main()
