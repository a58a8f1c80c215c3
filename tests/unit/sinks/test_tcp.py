# SPDX-License-Identifier: Apache-2.0
"""Against servers on the loopback interface that behave in every way a receiver may."""

import queue
import socket
import struct
import threading

import pytest

from ecapture.errors import SinkError
from ecapture.sinks.tcp import tcp_sink

DEADLINE = 60
FAST = (0.001, 0.01)


class Server:
    """Gives its connections to ``behave`` one after the other, each with a number."""

    def __init__(self, behave, family=socket.AF_INET, port=0):
        self.listener = socket.create_server(
            ("::1" if family == socket.AF_INET6 else "127.0.0.1", port), family=family
        )
        self.port = self.listener.getsockname()[1]
        self.got = queue.Queue()
        self._behave = behave
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        number = 0
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(DEADLINE)
                self._behave(connection, number, self.got)
            number += 1

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(DEADLINE)


@pytest.fixture
def serve():
    servers = []

    def start(behave, **options):
        servers.append(Server(behave, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def read_all(connection, number, got):
    data = b""
    while piece := connection.recv(65536):
        data += piece
    got.put((number, data))


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_exactly(connection, size):
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def test_everything_arrives_in_order(serve):
    server = serve(read_all)
    sink = tcp_sink("127.0.0.1", server.port, opening=lambda: b"<")
    pieces = [b"%d," % n for n in range(20_000)]
    for at in range(0, len(pieces), 7):
        sink.write(*pieces[at : at + 7])
    sink.close()
    assert server.got.get(timeout=DEADLINE) == (0, b"<" + b"".join(pieces))


def test_ipv6(serve):
    server = serve(read_all, family=socket.AF_INET6)
    sink = tcp_sink("::1", server.port)
    sink.write(b"x")
    sink.close()
    assert server.got.get(timeout=DEADLINE) == (0, b"x")


@pytest.mark.parametrize("abruptly", [False, True])
def test_it_connects_again(serve, abruptly):
    def behave(connection, number, got):
        if number == 0:
            first = read_exactly(connection, 7)
            if abruptly:
                reset(connection)
            connection.close()
            got.put(first)
        else:
            read_all(connection, number, got)

    server = serve(behave)
    sink = tcp_sink(
        "127.0.0.1", server.port, opening=lambda: b"open:", pauses=FAST, linger=DEADLINE
    )
    sink.write(b"1;")
    assert server.got.get(timeout=DEADLINE) == b"open:1;"
    for number in range(2, 10):
        sink.write(b"%d;" % number)
    sink.close()
    # The first may come twice: a reset does not tell how much was taken in before it.
    rest = b"".join(b"%d;" % n for n in range(2, 10))
    assert server.got.get(timeout=DEADLINE) in {(1, b"open:" + rest), (1, b"open:1;" + rest)}


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_receiver_that_is_gone_when_nothing_else_comes(serve, abruptly):
    """The last piece goes to nobody, and nothing follows that would show it: it is sent again."""
    connected, gone = threading.Event(), threading.Event()

    def behave(connection, number, got):
        if number == 0:
            assert connected.wait(DEADLINE)
            if abruptly:
                reset(connection)
            connection.close()
            gone.set()
        else:
            read_all(connection, number, got)

    server = serve(behave)
    sink = tcp_sink("127.0.0.1", server.port, pauses=FAST, linger=DEADLINE)
    connected.set()
    assert gone.wait(DEADLINE)
    sink.write(b"last")
    sink.close()
    assert server.got.get(timeout=DEADLINE) == (1, b"last")


def test_a_receiver_that_only_reads(serve):
    """It has shut its sending side down, as one-way tools do: that is no end."""

    def behave(connection, number, got):
        connection.shutdown(socket.SHUT_WR)
        got.put("half")
        read_all(connection, number, got)

    server = serve(behave)
    sink = tcp_sink("127.0.0.1", server.port)
    assert server.got.get(timeout=DEADLINE) == "half"
    for _ in range(50):
        sink.write(b"xy")
    sink.close()
    assert server.got.get(timeout=DEADLINE) == (0, b"xy" * 50)


def test_a_receiver_that_talks(serve):
    """What it says is taken in: left unread, closing would destroy what was sent."""

    def behave(connection, number, got):
        connection.sendall(b"welcome\n" * 1000)
        got.put("said")
        read_all(connection, number, got)

    server = serve(behave)
    sink = tcp_sink("127.0.0.1", server.port)
    assert server.got.get(timeout=DEADLINE) == "said"
    sink.write(b"one")
    sink.close()
    assert server.got.get(timeout=DEADLINE) == (0, b"one")


def test_a_receiver_that_never_reads(serve):
    done = threading.Event()
    server = serve(lambda *_: done.wait(DEADLINE))
    sink = tcp_sink("127.0.0.1", server.port, queue_bytes=1 << 20, linger=0.1)
    piece = bytes(1 << 20)
    for _ in range(64):
        sink.write(piece)
    assert sink.lost_pieces
    with pytest.raises(SinkError, match="were not delivered"):
        sink.close()
    assert sink.lost_bytes == sink.lost_pieces << 20
    done.set()


def test_refused():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(SinkError, match=rf"tcp://127.0.0.1:{port}: cannot be reached"):
        tcp_sink("127.0.0.1", port)


@pytest.mark.parametrize("host", ["a" * 70, "\udcff", "x..y"])
def test_no_host_name(host):
    with pytest.raises(SinkError, match="cannot be reached"):
        tcp_sink(host, 1)
