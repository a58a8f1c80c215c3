# SPDX-License-Identifier: Apache-2.0
import os
import queue
import socket
import threading

import pytest

from ecapture.errors import SinkError, UsageError
from ecapture.sinks.destination import (
    FileDestination,
    Stdout,
    TcpDestination,
    WebSocketDestination,
    open_sink,
    parse,
)
from ecapture.sinks.rotation import RotatingFile, Rotation

DEADLINE = 60


@pytest.mark.parametrize(
    "text, expected",
    [
        ("-", Stdout()),
        ("a.txt", FileDestination("a.txt")),
        ("/a b/c:d", FileDestination("/a b/c:d")),
        ("tcp:", FileDestination("tcp:")),
        ("tcp://example.com:9000", TcpDestination("example.com", 9000)),
        ("TCP://example.com:9000/", TcpDestination("example.com", 9000)),
        ("tcp://[::1]:9000", TcpDestination("::1", 9000)),
        ("ws://h", WebSocketDestination("ws://h")),
        ("wss://u:p@h:1/a?b=c", WebSocketDestination("wss://u:p@h:1/a?b=c")),
    ],
)
def test_reads(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "names no destination"),
        ("a\0b", "names no destination"),
        ("udp://h:1", "udp:// is no kind of destination"),
        ("http://h:1", "http:// is no kind of destination"),
        ("tcp://h", "tcp://h has no port"),
        ("tcp://:9", "malformed address (no host)"),
        ("tcp://h:0", "0 is no port"),
        ("tcp://h:x", "malformed address (Port could not be cast"),
        ("tcp://h:99999", "malformed address (Port out of range"),
        ("tcp://[::1:9", "malformed address (Invalid IPv6"),
        ("tcp://h:1/path", "takes a host and a port, and nothing else"),
        ("tcp://h:1?q", "takes a host and a port, and nothing else"),
        ("tcp://u@h:1", "takes a host and a port, and nothing else"),
        ("ws://", "malformed address (no host)"),
        ("ws://h/a b", "blank in it"),
        ("ws://h:0", "0 is no port"),
        ("ws://h/#a", "has no fragment"),
    ],
)
def test_refuses(text, problem):
    with pytest.raises(UsageError) as caught:
        parse(text, option="--eventaddr")
    assert str(caught.value).startswith("--eventaddr: ")
    assert problem in str(caught.value)
    assert "tcp://HOST:PORT" in caught.value.hint


def test_rotation_is_for_files():
    daily = Rotation(seconds=86400)
    assert parse("a", rotate=daily) == FileDestination("a", daily)
    assert parse("a", rotate=Rotation(keep=3)) == FileDestination("a")
    assert parse("-", rotate=Rotation()) == Stdout()
    for text in ("-", "tcp://h:1", "ws://h"):
        with pytest.raises(UsageError, match="only a file can be rotated"):
            parse(text, rotate=daily)


def test_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    sink = open_sink(FileDestination(str(path)), opening=lambda: b"<")
    sink.tick()
    sink.write(b"1", b"2")
    sink.write(b"3")
    sink.close()
    assert path.read_bytes() == b"<123"


def test_an_empty_file_has_its_opening(tmp_path):
    sink = open_sink(FileDestination(str(tmp_path / "a")), opening=lambda: b"<")
    sink.close()
    assert (tmp_path / "a").read_bytes() == b"<"


def test_a_rotating_file(tmp_path):
    sink = open_sink(FileDestination(str(tmp_path / "a"), Rotation(size=1)), opening=lambda: b"<")
    assert isinstance(sink, RotatingFile)
    sink.write(b"1")
    sink.write(b"2")
    sink.close()
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"<1", b"<2"]


def test_standard_output(capfdbinary):
    sink = open_sink(Stdout(), opening=lambda: b"<")
    sink.write(b"1")
    sink.close()
    assert os.fstat(1)
    assert capfdbinary.readouterr().out == b"<1"


def test_a_tcp_port():
    got = queue.Queue()

    def receive():
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE)
            data = b""
            while piece := connection.recv(100):
                data += piece
            got.put(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        sink = open_sink(
            TcpDestination("127.0.0.1", listener.getsockname()[1]), opening=lambda: b"<"
        )
        sink.write(b"1")
        sink.close()
        assert got.get(timeout=DEADLINE) == b"<1"
        thread.join(DEADLINE)


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_nobody_listens(scheme, monkeypatch):
    pytest.importorskip("websockets")
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(SinkError, match="cannot be reached"):
        open_sink(parse(f"{scheme}://127.0.0.1:{port}"))
