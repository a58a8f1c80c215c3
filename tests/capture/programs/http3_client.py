# SPDX-License-Identifier: Apache-2.0
"""An HTTP/3 client on loopback: ``http3_client.py KEYLOG`` says "ready", then obeys.

``get PORT PATH`` fetches over a connection of its own and answers with the body. Its QUIC is
aioquic, as in ``http3_server.py``: nothing of it is seen by probes.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import TextIO

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent


class Asking(QuicConnectionProtocol):
    def ask(self, path: str) -> asyncio.Future[bytes]:
        self.http = H3Connection(self._quic)
        self.body = b""
        self.answered: asyncio.Future[bytes] = self._loop.create_future()
        stream = self._quic.get_next_available_stream_id()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost")]
        self.http.send_headers(stream, [*fields, (b":path", path.encode())], end_stream=True)
        self.transmit()
        return self.answered

    def quic_event_received(self, event: QuicEvent) -> None:
        for told in self.http.handle_event(event) if hasattr(self, "http") else ():
            if isinstance(told, DataReceived):
                self.body += told.data
                if told.stream_ended:
                    self.answered.set_result(self.body)


async def get(port: str, path: str, log: TextIO) -> str:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        secrets_log_file=log,
        verify_mode=ssl.CERT_NONE,
    )
    async with connect(
        "127.0.0.1", int(port), configuration=configuration, create_protocol=Asking
    ) as client:
        return (await client.ask(path)).decode()


with Path(sys.argv[1]).open("a", buffering=1) as keylog:
    print("ready", flush=True)
    for line in sys.stdin:
        print(asyncio.run(get(*line.split()[1:], keylog)), flush=True)
