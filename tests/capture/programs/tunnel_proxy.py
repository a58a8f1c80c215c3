# SPDX-License-Identifier: Apache-2.0
"""A proxy behind TLS that makes tunnels (CONNECT) to a server without TLS, both in one process.

``tunnel_proxy.py CERTIFICATE KEY`` prints the port of the proxy, then that of the server, which
answers each request with its own path.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(1 << 16):
        sink.write(piece)
        await sink.drain()
    sink.close()


async def tunnel(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    head = await client.readuntil(b"\r\n\r\n")
    host, _, port = head.split()[1].decode().rpartition(":")
    server, ask = await asyncio.open_connection(host, int(port))
    answer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(copy(client, ask), copy(server, answer))


async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):  # the client has gone
        while True:
            path = (await client.readuntil(b"\r\n\r\n")).split()[1]
            answer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
            await answer.drain()
    answer.close()


async def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0, ssl=context)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    for listening in (proxy, server):
        print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(proxy.serve_forever(), server.serve_forever())


asyncio.run(main())
