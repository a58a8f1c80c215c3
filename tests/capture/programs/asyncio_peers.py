# SPDX-License-Identifier: Apache-2.0
"""TLS over asyncio, which keeps the library away from sockets (SSLObject, MemoryBIO).

``asyncio_peers.py server CERTIFICATE KEY`` prints its port and sends back every block it gets.
``asyncio_peers.py client CERTIFICATE PORT`` says "ready" and is told what to do line by line:
``send TEXT COUNT`` opens a connection, sends the text COUNT times as one block, reads as much, and
answers "same"; ``pair TEXT`` does so on two connections at once, whose blocks have equal sizes.
"""

from __future__ import annotations

import asyncio
import ssl
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while size := await reader.read(4):
        size += b"" if len(size) == 4 else await reader.readexactly(4 - len(size))
        writer.write(size + await reader.readexactly(int.from_bytes(size, "big")))
        await writer.drain()
    writer.close()


async def serve(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client:
    def __init__(self, certificate: str, port: str) -> None:
        self.context = ssl.create_default_context(cafile=certificate)
        self.port = int(port)

    async def send(self, text: str, count: str) -> str:
        said = text.encode() * int(count)
        reader, writer = await asyncio.open_connection(
            "localhost", self.port, ssl=self.context, family=2
        )
        writer.write(len(said).to_bytes(4, "big") + said)
        heard = await reader.readexactly(4 + len(said))
        writer.close()
        await writer.wait_closed()
        return "same" if heard[4:] == said else "different"

    async def pair(self, text: str) -> str:
        answers = await asyncio.gather(self.send("1" + text, "1"), self.send("2" + text, "1"))
        return " ".join(answers)


async def ask(certificate: str, port: str) -> None:
    client = Client(certificate, port)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *words = line.split()
        print(await getattr(client, command)(*words), flush=True)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    asyncio.run(serve(*words) if role == "server" else ask(*words))
