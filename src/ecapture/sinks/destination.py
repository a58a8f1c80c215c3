# SPDX-License-Identifier: Apache-2.0
"""Where output goes: a text of the command line to a frozen value, and that to a sink.

``-`` is standard output, ``tcp://HOST:PORT``, ``ws://…`` and ``wss://…`` are receivers elsewhere,
anything else is a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final, NoReturn, Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec

from ecapture.errors import UsageError
from ecapture.sinks.file import open_output
from ecapture.sinks.rotation import Closing, RotatingFile, Rotation
from ecapture.sinks.writer import Writer

STDOUT: Final = "-"


class Stdout(msgspec.Struct, frozen=True):
    """Standard output."""


class FileDestination(msgspec.Struct, frozen=True):
    """A file, emptied first; with ``rotate`` it is set aside first, and whenever that says.

    ``option`` named it: for messages.
    """

    path: str
    rotate: Rotation | None = None
    option: str = "-w"


class TcpDestination(msgspec.Struct, frozen=True):
    """A TCP port."""

    host: str
    port: int


class WebSocketDestination(msgspec.Struct, frozen=True):
    """A WebSocket server; ``url`` may have a user and a password in it."""

    url: str


Destination = Stdout | FileDestination | TcpDestination | WebSocketDestination


class Sink(Protocol):
    """Takes bytes and never looks inside. All methods may raise SinkError."""

    def begin(self) -> None:
        """What is to be written comes: the content of an earlier run gives way."""

    def write(self, *pieces: bytes) -> bool | None:
        """Queues pieces. Where messages are sent, each piece is one. False: some were dropped."""

    def tick(self) -> None:
        """Time has passed though nothing came: call it now and then."""

    def close(self) -> None:
        """Writes what is queued, and ends."""


def parse(text: str, *, option: str = "-w", rotate: Rotation | None = None) -> Destination:
    """The destination that a text names. Raises UsageError, in the name of ``option``."""

    def refuse(problem: str) -> NoReturn:
        raise UsageError(
            option=option,
            problem=problem,
            hint="destinations: FILE, -, tcp://HOST:PORT, ws://HOST[:PORT]/PATH, wss://…",
        )

    if rotate is not None and not (rotate.size or rotate.seconds):
        rotate = None
    found: Destination
    if not text or "\0" in text:
        refuse("names no destination")
    if text == STDOUT:
        found = Stdout()
    elif "://" not in text:
        return FileDestination(text, rotate, option)
    else:
        found = _receiver(text, refuse)
    if rotate is not None:
        refuse("only a file can be rotated")
    return found


def _receiver(text: str, refuse: Callable[[str], NoReturn]) -> Destination:
    scheme = text.partition("://")[0].lower()
    if scheme not in {"tcp", "ws", "wss"}:
        refuse(f"{scheme}:// is no kind of destination")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        refuse(f"malformed address ({error})")
    if not host or not text.isprintable() or " " in text:
        refuse("malformed address (no host)" if not host else "malformed address (blank in it)")
    if port == 0:
        refuse("0 is no port")
    if scheme != "tcp":
        if parts.fragment:
            refuse("a WebSocket address has no fragment (#)")
        return WebSocketDestination(text)
    if port is None:
        refuse(f"tcp://{host} has no port")
    if _more_than_host_and_port(parts):
        refuse("tcp:// takes a host and a port, and nothing else")
    return TcpDestination(host, port)


def _more_than_host_and_port(parts: SplitResult) -> bool:
    return bool(parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)


def is_terminal(destination: Destination) -> bool:
    """Whether a terminal shows what is written there. Raises SinkError as ``open_sink`` does."""
    if isinstance(destination, Stdout):
        return os.isatty(1)
    if not isinstance(destination, FileDestination):
        return False
    try:
        if not stat.S_ISCHR(os.stat(destination.path).st_mode):  # noqa: PTH116 - follows links
            return False
    except OSError:
        return False
    fd = open_output(destination.path, option=destination.option)
    try:
        return os.isatty(fd)
    finally:
        os.close(fd)


def open_sink(
    destination: Destination,
    *,
    opening: Callable[[], bytes] = bytes,
    opening_here: Callable[[], Callable[[], bytes]] | None = None,
    closing: Closing | None = None,
    text: bool = False,
) -> Sink:
    """Opens it. Raises SinkError, or UsageError where something is not installed.

    ``opening`` gives what every file and every connection begins with. It is asked when there is
    something to be written, or at the end; ``opening_here`` is for receivers, whose connections
    may begin at any write: see ``forward``. ``closing`` is what files end with that are set aside.
    ``text`` says that pieces are text, where that matters.
    """
    if isinstance(destination, TcpDestination):
        from ecapture.sinks.tcp import tcp_sink  # noqa: PLC0415 - slow to import

        host, port = destination.host, destination.port
        return tcp_sink(host, port, opening=opening, opening_here=opening_here)
    if isinstance(destination, WebSocketDestination):
        from ecapture.sinks.websocket import websocket_sink  # noqa: PLC0415 - slow to import

        url = destination.url
        return websocket_sink(url, text=text, opening=opening, opening_here=opening_here)
    if isinstance(destination, Stdout):
        return _Opened(Writer(1, "standard output", owned=False), opening)
    if destination.rotate is not None:
        return RotatingFile(
            destination.path,
            destination.rotate,
            opening=opening,
            closing=closing,
            option=destination.option,
        )
    path, option = destination.path, destination.option
    fd = open_output(path, option=option)
    return _Opened(Writer(fd, path, owned=True, option=option), opening)


class _Opened:
    # A writer that begins with the opening.

    def __init__(self, writer: Writer, opening: Callable[[], bytes]) -> None:
        self._writer = writer
        self._opening: Callable[[], bytes] | None = opening

    def begin(self) -> None:
        self._writer.begin()

    def write(self, *pieces: bytes) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            self._writer.write(opening())
        self._writer.write(*pieces)

    def tick(self) -> None:
        pass

    def close(self) -> None:
        try:
            self.write()
        finally:
            self._writer.close()
