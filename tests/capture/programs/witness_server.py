# SPDX-License-Identifier: Apache-2.0
"""An HTTPS server that is a witness of every byte: what it heard and said, by the client's port.

Usage: witness_server.py CERTIFICATE KEY FOLDER VERSION. Prints its port. Answers any request over
HTTP/1.1 with the body it was sent, or with "thing NUMBER " so many times as the path's last number
says. A connection leaves PORT.heard and PORT.said in FOLDER before it is closed.
"""

import socketserver
import ssl
import sys
from pathlib import Path

folder = Path(sys.argv[3])


class Witness(socketserver.BaseRequestHandler):
    def handle(self):
        port = self.request.getpeername()[1]
        heard, said = bytearray(), bytearray()
        try:
            with context.wrap_socket(self.request, server_side=True) as peer:
                self.talk(peer, heard, said)
        except (OSError, EOFError):
            pass
        (folder / f"{port}.heard").write_bytes(heard)
        (folder / f"{port}.part").write_bytes(said)
        (folder / f"{port}.part").rename(folder / f"{port}.said")

    def talk(self, peer, heard, said):
        waiting = bytearray()

        def more():
            got = peer.recv(65536)
            if not got:
                raise EOFError
            heard.extend(got)
            waiting.extend(got)

        while True:
            while b"\r\n\r\n" not in waiting:
                more()
            head = bytes(waiting).partition(b"\r\n\r\n")[0]
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields.get(b"content-length", 0))
            while len(waiting) < len(head) + 4 + length:
                more()
            body = bytes(waiting[len(head) + 4 :][:length])
            del waiting[: len(head) + 4 + length]
            path = head.split(b" ")[1].decode()
            if not body:
                number = path.rstrip("/").rsplit("/", 1)[-1]
                body = f"thing {path} ".encode() * (int(number) if number.isdigit() else 1)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            said.extend(answer)
            peer.sendall(answer)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.minimum_version = context.maximum_version = ssl.TLSVersion[
    "TLSv" + sys.argv[4].replace(".", "_")
]
server = Server(("127.0.0.1", 0), Witness)
print(server.server_address[1], flush=True)
server.serve_forever()
