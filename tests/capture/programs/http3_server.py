# SPDX-License-Identifier: Apache-2.0
"""An HTTP/3 server on loopback: ``http3_server.py CERTIFICATE KEY KEYLOG`` prints its port.

Answers every request with the path that was asked for. Its QUIC is aioquic, whose TLS is its own:
nothing of it is seen by probes, and its key log is the other peer's.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TextIO

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent


class Answering(QuicConnectionProtocol):
    http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for told in self.http.handle_event(event):
            if isinstance(told, HeadersReceived):
                path = dict(told.headers)[b":path"]
                head = [(b":status", b"200"), (b"content-length", str(len(path)).encode())]
                self.http.send_headers(told.stream_id, head)
                self.http.send_data(told.stream_id, path, end_stream=True)
                self.transmit()


async def main(certificate: str, key: str, log: TextIO) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN, secrets_log_file=log)
    configuration.load_cert_chain(certificate, key)
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Answering)
    print(server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()


with Path(sys.argv[3]).open("a", buffering=1) as keylog:
    asyncio.run(main(sys.argv[1], sys.argv[2], keylog))
