# SPDX-License-Identifier: Apache-2.0
"""An aiohttp server behind TLS that says what the tests of conversations want to hear.

``web_server.py CERTIFICATE KEY`` prints its port. Paths: ``/echo`` answers with the body, ``/size``
with its length, ``/coded/CODING/N`` with N numbered lines in that content coding, ``/chunks/N``
with them as so many chunks, ``/events/N`` with server-sent events, ``/socket`` echoes WebSocket
messages, ``/status/N`` has that status.
"""

from __future__ import annotations

import gzip
import ssl
import sys
import zlib

import brotli
import zstandard
from aiohttp import web

CODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
}


def lines(count: int) -> bytes:
    """What the coded and the chunked content is."""
    return b"".join(b"line %d of %d\n" % (n, count) for n in range(count))


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def size(request: web.Request) -> web.Response:
    total = 0
    async for piece in request.content.iter_any():
        total += len(piece)
    return web.Response(text=str(total))


async def coded(request: web.Request) -> web.Response:
    coding = request.match_info["coding"]
    body = CODERS[coding](lines(int(request.match_info["count"])))
    headers = {} if coding == "identity" else {"Content-Encoding": coding}
    return web.Response(body=body, headers=headers, content_type="text/plain")


async def chunks(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for line in lines(int(request.match_info["count"])).splitlines(keepends=True):
        await answer.write(line)
    await answer.write_eof()
    return answer


async def events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for n in range(int(request.match_info["count"])):
        await answer.write(b": a remark\nid: %d\nevent: tick\ndata: %d\ndata: more\n\n" % (n, n))
    await answer.write_eof()
    return answer


async def socket(request: web.Request) -> web.WebSocketResponse:
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    async for message in answer:
        if message.type is web.WSMsgType.TEXT:
            await answer.send_str(message.data)
        else:
            await answer.send_bytes(message.data)
    return answer


async def status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["count"]), text="as asked")


async def announce(application: web.Application) -> None:
    print(application["socket"].getsockname()[1], flush=True)


def main() -> None:
    import socket as sockets  # noqa: PLC0415 - the name is a path here

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/echo", echo)
    application.router.add_post("/size", size)
    application.router.add_get("/coded/{coding}/{count}", coded)
    application.router.add_get("/chunks/{count}", chunks)
    application.router.add_get("/events/{count}", events)
    application.router.add_get("/socket", socket)
    application.router.add_get("/status/{count}", status)
    application["socket"] = sockets.create_server(("127.0.0.1", 0))
    application.on_startup.append(announce)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    web.run_app(application, sock=application["socket"], ssl_context=context, print=None)


if __name__ == "__main__":
    main()
