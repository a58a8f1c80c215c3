# SPDX-License-Identifier: Apache-2.0
"""A TLS client that moves records between its library and sockets by hand, told what to do.

``memory_client.py CERTIFICATE PORT`` says "ready". Connections have names: ``open NAME`` shakes
hands and answers with its own port, ``write NAME TEXT`` leaves the records in memory, ``flush
NAME`` sends them, ``flushed NAME`` does so by another thread, ``read NAME`` receives and answers
with the text, ``close NAME`` forgets the connection. ``noise SIZE`` sends so many bytes on a
connection of its own that has nothing to do with TLS, ``datagram SIZE`` likewise by UDP.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading

context = ssl.create_default_context(cafile=sys.argv[1])
port = int(sys.argv[2])
listening = socket.create_server(("127.0.0.1", 0))
aside = socket.create_connection(listening.getsockname())
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.connect(listening.getsockname())


class Connection:
    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.socket.recv(1 << 16))
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def read(self) -> str:
        while True:
            try:
                return self.tls.read(1 << 16).decode().strip()
            except ssl.SSLWantReadError:
                self.incoming.write(self.socket.recv(1 << 16))


connections: dict[str, Connection] = {}


def act(command: str, name: str, text: str = "") -> str:
    if command == "open":
        connections[name] = Connection()
        return str(connections[name].socket.getsockname()[1])
    if command == "noise":
        aside.sendall(bytes(int(name)))
    elif command == "datagram":
        datagrams.send(bytes(int(name)))
    elif command == "write":
        connections[name].tls.write(text.encode() + b"\n")
    elif command == "flush":
        connections[name].flush()
    elif command == "flushed":
        thread = threading.Thread(target=connections[name].flush)
        thread.start()
        thread.join()
    elif command == "read":
        return connections[name].read()
    elif command == "close":
        del connections[name]
    return "ok"


print("ready", flush=True)
for line in sys.stdin:
    print(act(*line.split()), flush=True)
