# SPDX-License-Identifier: Apache-2.0
"""Both ends of gRPC calls by grpcio, whose wheel carries a stripped BoringSSL.

``grpcio_peers.py server CERTIFICATE KEY`` prints its port and answers /test/echo with what it was
asked. ``grpcio_peers.py client CERTIFICATE PORT`` says "ready" and is told what to do line by line:
``call TEXT COUNT`` makes a call with the text COUNT times and answers "same".
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

LIMITS = [("grpc.max_receive_message_length", 8 << 20)]


class Echo(grpc.GenericRpcHandler):
    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda asked, _context: asked)


def serve(certificate: str, key: str) -> None:
    credentials = grpc.ssl_server_credentials(
        [(Path(key).read_bytes(), Path(certificate).read_bytes())]
    )
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Echo()], options=LIMITS)
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    server.start()
    server.wait_for_termination()


def ask(certificate: str, port: str) -> None:
    credentials = grpc.ssl_channel_credentials(Path(certificate).read_bytes())
    print("ready", flush=True)
    for line in sys.stdin:
        _command, text, count = line.split()
        said = text.encode() * int(count)
        with grpc.secure_channel(f"localhost:{port}", credentials, LIMITS) as channel:
            heard = channel.unary_unary("/test/echo")(said, timeout=120)
        print("same" if heard == said else "different", flush=True)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    serve(*words) if role == "server" else ask(*words)
