# SPDX-License-Identifier: Apache-2.0
"""Output to whoever listens at a TCP port: the bytes, one behind the other. See ``forward``."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Final

from ecapture.sinks.forward import CONNECT_SECONDS, Forwarder, unconfirmed_bytes
from ecapture.sinks.writer import QUEUE_BYTES

_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # Another end that answers nothing for 15 + 4 * 5 seconds is gone. A slow reader does answer.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    # The same while something is under way (ms); who reads nothing so long is connected to anew.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
)
_UNWANTED_BYTES: Final = 1 << 16


class _TcpLink:
    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = socket.create_connection((host, port), CONNECT_SECONDS)
        except UnicodeError as error:
            raise OSError(f"no host name: {error}") from None
        try:
            self._socket.settimeout(None)
            for level, option, value in _OPTIONS:
                self._socket.setsockopt(level, option, value)
        except OSError:
            self._socket.close()  # it was reset already
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, 0)  # errors are reported unasked

    def send(self, piece: bytes) -> None:
        self._socket.sendall(piece)

    def unconfirmed(self) -> int:
        return unconfirmed_bytes(self._socket.fileno())

    def check(self) -> None:
        # An end of file alone is no fault: some receivers close their sending side and go on
        # reading. Whether they do is seen at the next piece, which is kept until it is confirmed.
        if self._poll.poll(0):
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            raise OSError(number, "closed by the receiver")
        # What is left unread would make closing a reset, which can destroy what we sent.
        with contextlib.suppress(BlockingIOError):
            self._socket.recv(_UNWANTED_BYTES, socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def tcp_sink(
    host: str,
    port: int,
    *,
    opening: Callable[[], bytes] = bytes,
    opening_here: Callable[[], Callable[[], bytes]] | None = None,
    queue_bytes: int = QUEUE_BYTES,
    pauses: tuple[float, float] = (0.1, 10.0),
    linger: float = 3.0,
) -> Forwarder:
    """Sends to ``host``:``port``; what one call writes stays together. See Forwarder."""
    shown = f"[{host}]" if ":" in host else host
    return Forwarder(
        lambda: _TcpLink(host, port),
        f"tcp://{shown}:{port}",
        joined=True,
        opening=opening,
        opening_here=opening_here,
        queue_bytes=queue_bytes,
        pauses=pauses,
        linger=linger,
    )
