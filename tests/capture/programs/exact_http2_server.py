# SPDX-License-Identifier: Apache-2.0
"""An HTTP/2 server behind TLS that keeps what went over each connection, byte by byte.

``exact_http2_server.py CERTIFICATE KEY KEYS FOLDER PAGE``: as ``exact_server.py``, by HTTP/2 alone.
It says nothing on connections on which the client says nothing.
"""

from __future__ import annotations

import pathlib
import socket
import ssl
import sys
import threading

import h2.config
import h2.connection
import h2.events

certificate, key, keys, folder, page = sys.argv[1:]
content = pathlib.Path(page).read_bytes()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.keylog_filename = keys
context.set_alpn_protocols(["h2"])


class Answers:
    """What is still to be sent on each stream."""

    def __init__(self, session: h2.connection.H2Connection) -> None:
        self._session = session
        self._left: dict[int, bytes] = {}

    def begin(self, event: h2.events.RequestReceived) -> None:
        body = content if dict(event.headers)[b":path"] == b"/page" else b""
        head = [(":status", "200"), ("content-type", "text/html"), ("content-length", len(body))]
        self._session.send_headers(event.stream_id, [(n, str(v)) for n, v in head])
        self._left[event.stream_id] = body

    def go_on(self) -> None:
        for stream in list(self._left):
            while stream in self._left and (room := self._room(stream)):
                left = self._left.pop(stream)
                self._session.send_data(stream, left[:room], end_stream=room >= len(left))
                if room < len(left):
                    self._left[stream] = left[room:]

    def _room(self, stream: int) -> int:
        window = self._session.local_flow_control_window(stream)
        return min(window, self._session.max_outbound_frame_size)


def serve(raw: socket.socket, port: int) -> None:
    came, went = b"", b""
    session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    answers = Answers(session)
    session.initiate_connection()
    with context.wrap_socket(raw, server_side=True) as connection:
        while part := connection.recv(1 << 16):
            came += part
            for event in session.receive_data(part):
                if isinstance(event, h2.events.RequestReceived):
                    answers.begin(event)
            answers.go_on()
            out = session.data_to_send()
            connection.sendall(out)
            went += out
            pathlib.Path(folder, f"{port}.in").write_bytes(came)
            pathlib.Path(folder, f"{port}.out").write_bytes(went)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        raw, (_, port) = listener.accept()
        threading.Thread(target=serve, args=(raw, port), daemon=True).start()


main()
