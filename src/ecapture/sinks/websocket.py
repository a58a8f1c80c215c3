# SPDX-License-Identifier: Apache-2.0
"""Output to a WebSocket server (RFC 6455): one message for each piece. See ``forward``.

The protocol is spoken by the package ``websockets``, which only the extra ``forward`` installs. It
answers pings and sees closing handshakes from a thread of its own.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ecapture.errors import UsageError
from ecapture.sinks.forward import CONNECT_SECONDS, Forwarder, unconfirmed_bytes
from ecapture.sinks.writer import QUEUE_BYTES

if TYPE_CHECKING:
    import ssl

    from websockets.sync.client import ClientConnection

_CLOSE_SECONDS: Final = 1.0
_UNWANTED: Final = 64  # messages taken in at a time
_UNWANTED_BYTES: Final = 1 << 16  # of one; who sends more is disconnected

# The package would log frames, and so what was captured.
_silent = logging.getLogger(f"{__name__}.frames")
_silent.disabled = True


class _WebSocketLink:
    def __init__(self, url: str, *, text: bool, tls: ssl.SSLContext | None) -> None:
        # Imported late: an optional dependency, and not a light one.
        from websockets.exceptions import WebSocketException  # noqa: PLC0415
        from websockets.protocol import State  # noqa: PLC0415
        from websockets.sync.client import connect  # noqa: PLC0415

        self._text = text
        self._failures = (WebSocketException, EOFError, UnicodeError)
        self._open = State.OPEN
        self._entered = contextlib.ExitStack()  # later versions connect on entering
        try:
            self._connection: ClientConnection = self._entered.enter_context(
                connect(
                    url,
                    ssl=tls,
                    compression=None,  # so that bytes on the wire are never fewer than ours
                    user_agent_header="ecapture",
                    open_timeout=CONNECT_SECONDS,
                    close_timeout=_CLOSE_SECONDS,
                    max_size=_UNWANTED_BYTES,
                    logger=_silent,
                )
            )
        except self._failures as error:
            raise ConnectionError(str(error)) from error

    def send(self, piece: bytes) -> None:
        message: str | bytes = piece
        if self._text:
            with contextlib.suppress(UnicodeDecodeError):
                message = piece.decode()
        try:
            self._connection.send(message)
        except self._failures as error:
            raise ConnectionError(str(error)) from error

    def unconfirmed(self) -> int:
        return unconfirmed_bytes(self._connection.socket.fileno())

    def check(self) -> None:
        try:
            # Unread messages would keep the package from reading on, and so from seeing the end.
            for _ in range(_UNWANTED):
                self._connection.recv(timeout=0)
        except TimeoutError:
            pass
        except self._failures as error:
            raise ConnectionError(str(error)) from error
        if self._connection.state is not self._open:
            raise ConnectionError("closed by the receiver")

    def close(self) -> None:
        with contextlib.suppress(OSError, *self._failures):
            self._entered.close()

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)


def shown_url(url: str) -> str:
    """A URL for messages: without user, password and query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def websocket_sink(
    url: str,
    *,
    text: bool = False,
    tls: ssl.SSLContext | None = None,
    opening: Callable[[], bytes] = bytes,
    opening_here: Callable[[], Callable[[], bytes]] | None = None,
    queue_bytes: int = QUEUE_BYTES,
    pauses: tuple[float, float] = (0.1, 10.0),
    linger: float = 3.0,
) -> Forwarder:
    """Sends each piece as a message to a ws:// or wss:// URL. See Forwarder.

    ``text`` makes them text messages, where they are UTF-8. ``tls`` replaces the system's trust.
    Raises UsageError if the package for it is not installed.
    """
    name = shown_url(url)
    try:
        import websockets.sync.client  # noqa: F401, PLC0415
    except ImportError:
        raise UsageError(
            option=name,
            problem="WebSocket needs the Python package websockets, which is not installed",
            hint="pip install 'pyecapture[forward]'",
        ) from None
    return Forwarder(
        lambda: _WebSocketLink(url, text=text, tls=tls),
        name,
        joined=False,
        opening=opening,
        opening_here=opening_here,
        queue_bytes=queue_bytes,
        pauses=pauses,
        linger=linger,
    )
