# SPDX-License-Identifier: Apache-2.0
"""Both ends of gRPC calls, by grpclib over CPython's TLS.

``grpc_peers.py server CERTIFICATE KEY`` prints its port. ``grpc_peers.py client CERTIFICATE PORT
COUNT`` prints ``ready``, reads a line, makes COUNT unary calls, a streaming and a failing one.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

import grpclib.client
import grpclib.const
import grpclib.encoding.base
import grpclib.exceptions
import grpclib.server


class Octets(grpclib.encoding.base.CodecBase):
    """Messages as they are: octets that are a protocol buffer already."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, _type: type) -> bytes:
        return message

    def decode(self, data: bytes, _type: type) -> bytes:
        return data


class Echo:
    """/test.Echo: Say answers once, Count repeats ten times, Fail fails."""

    async def say(self, stream: grpclib.server.Stream) -> None:
        await stream.send_message(await stream.recv_message())

    async def count(self, stream: grpclib.server.Stream) -> None:
        async for message in stream:
            for _ in range(10):
                await stream.send_message(message)

    async def fail(self, stream: grpclib.server.Stream) -> None:
        await stream.recv_message()
        raise grpclib.exceptions.GRPCError(grpclib.const.Status.NOT_FOUND, "no such thing")

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        kinds = grpclib.const.Cardinality
        return {
            "/test.Echo/Say": grpclib.const.Handler(self.say, kinds.UNARY_UNARY, bytes, bytes),
            "/test.Echo/Count": grpclib.const.Handler(
                self.count, kinds.STREAM_STREAM, bytes, bytes
            ),
            "/test.Echo/Fail": grpclib.const.Handler(self.fail, kinds.UNARY_UNARY, bytes, bytes),
        }


async def serve(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    server = grpclib.server.Server([Echo()], codec=Octets())
    await server.start("127.0.0.1", 0, ssl=context)
    print(server._server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


async def ask(certificate: str, port: str, count: str) -> None:
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    print("ready", flush=True)
    sys.stdin.readline()
    kinds = grpclib.client
    async with kinds.Channel("localhost", int(port), ssl=context, codec=Octets()) as channel:
        say = kinds.UnaryUnaryMethod(channel, "/test.Echo/Say", bytes, bytes)
        # field 1, a varint; field 2, text (protocol buffers' encoding)
        calls = [say(b"\x08%c\x12\x05hello" % n) for n in range(int(count))]
        await asyncio.gather(*calls)
        stream = kinds.StreamStreamMethod(channel, "/test.Echo/Count", bytes, bytes)
        answers = await stream([b"\x12\x05again"] * 3)
        fail = kinds.UnaryUnaryMethod(channel, "/test.Echo/Fail", bytes, bytes)
        try:
            await fail(b"\x08\x01")
        except grpclib.exceptions.GRPCError as error:
            print(len(answers), error.status.name, flush=True)


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    asyncio.run(serve(*words) if role == "server" else ask(*words))
