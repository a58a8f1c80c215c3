# SPDX-License-Identifier: Apache-2.0
"""Python's clients of HTTP, WebSocket and gRPC, each asking on a word from its standard input.

``clients.py NAME CERTIFICATE PORT [ARGUMENT ...]`` prints ``ready``, reads a line, does its work
and prints what it saw as JSON. ``steps`` asks once per line over one connection.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import sys


def trusting(certificate: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def await_word() -> bool:
    print("ready", flush=True)
    return bool(sys.stdin.readline())


def use_httpx(certificate: str, port: str, version: str, count: str, path: str = "") -> object:
    import httpx  # noqa: PLC0415 - each client loads its own library only

    seen = []
    with httpx.Client(verify=trusting(certificate), http2=version == "2") as client:
        await_word()
        for n in range(int(count)):
            place = f"https://localhost:{port}{path or '/echo'}?{n}"
            answer = client.get(place) if path else client.post(place, content=f"said {n}")
            seen.append([answer.status_code, answer.text, answer.http_version])
    return seen


def use_aiohttp(certificate: str, port: str) -> object:
    import aiohttp  # noqa: PLC0415

    async def pieces() -> object:
        for n in range(10):
            yield f"piece {n};".encode()

    async def talk() -> object:
        async with aiohttp.ClientSession() as session:
            place = f"https://localhost:{port}"
            context = trusting(certificate)
            seen = []
            for path, content in (("/echo", pieces()), ("/size", pieces()), ("/echo", b"whole")):
                async with session.post(place + path, data=content, ssl=context) as answer:
                    seen.append(await answer.text())
            return seen

    await_word()
    return asyncio.run(talk())


def use_websockets(certificate: str, port: str, count: str) -> object:
    # Not its client with threads: before 3.13 CPython lets two of them into one SSL object at once.
    from websockets.asyncio.client import connect  # noqa: PLC0415

    async def talk() -> object:
        seen = []
        async with connect(f"wss://localhost:{port}/socket", ssl=trusting(certificate)) as client:
            for n in range(int(count)):
                await client.send(f"text {n} " * 50)
                seen.append(await client.recv())
                await client.send(bytes([n % 256]) * 3000)
                seen.append(len(await client.recv()))
            await (await client.ping(b"there?"))
            # A message in fragments (RFC 6455, 5.4).
            await client.send(["one, ", "two, ", "three"])
            seen.append(await client.recv())
        return seen

    await_word()
    return asyncio.run(talk())


def use_steps(certificate: str, port: str, path: str) -> object:
    connection = http.client.HTTPSConnection("localhost", int(port), context=trusting(certificate))
    connection.connect()
    count = 0
    while await_word():
        connection.request("GET", f"{path}?{count}", headers={"X-Step": str(count)})
        connection.getresponse().read()
        count += 1
    return count


def use_steps2(certificate: str, port: str, path: str) -> object:
    import httpx  # noqa: PLC0415

    count = 0
    with httpx.Client(verify=trusting(certificate), http2=True) as client:
        client.get(f"https://localhost:{port}{path}")
        while await_word():
            headers = {f"X-Step-{count}": "a field like no other before"}
            client.get(f"https://localhost:{port}{path}?{count}", headers=headers)
            count += 1
    return count


def use_half(certificate: str, port: str) -> object:
    connection = http.client.HTTPSConnection("localhost", int(port), context=trusting(certificate))
    connection.connect()
    await_word()
    connection.putrequest("POST", "/size")
    connection.putheader("Content-Length", "2000")
    connection.endheaders()
    connection.send(bytes(1000))
    await_word()
    connection.send(bytes(1000))
    return int(connection.getresponse().read())


def use_expecting(certificate: str, port: str) -> object:
    connection = http.client.HTTPSConnection("localhost", int(port), context=trusting(certificate))
    connection.connect()
    await_word()
    connection.putrequest("POST", "/size")
    connection.putheader("Content-Length", "1000")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    heard = b""
    while not heard.endswith(b"\r\n\r\n"):
        heard += connection.sock.recv(1)
    await_word()
    connection.send(bytes(1000))
    return int(connection.getresponse().read())


def use_upload(certificate: str, port: str, mebibytes: str) -> object:
    connection = http.client.HTTPSConnection("localhost", int(port), context=trusting(certificate))
    connection.connect()
    size = int(mebibytes) << 20
    await_word()
    connection.putrequest("POST", "/size")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    for at in range(0, size, 1 << 16):
        connection.send(bytes(min(1 << 16, size - at)))
    return int(connection.getresponse().read())


def main() -> None:
    name, *words = sys.argv[1:]
    print(json.dumps(globals()[f"use_{name}"](*words)), flush=True)


if __name__ == "__main__":
    main()
