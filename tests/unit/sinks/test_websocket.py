# SPDX-License-Identifier: Apache-2.0
"""Against servers of the same package, on the loopback interface."""

import contextlib
import logging
import queue
import ssl
import subprocess
import sys
import threading
import time

import pytest

from ecapture.errors import SinkError, UsageError
from ecapture.sinks.websocket import shown_url, websocket_sink

websockets = pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.server import serve as serve_websocket  # noqa: E402

DEADLINE = 60
FAST = (0.001, 0.01)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve():
    servers = []

    def start(behave, **options):
        got = queue.Queue()
        server = serve_websocket(lambda peer: behave(peer, got), "127.0.0.1", 0, **options)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server.socket.getsockname()[1], got

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(DEADLINE)


def read_all(peer, got):
    messages = []
    with contextlib.suppress(ConnectionClosed):
        messages.extend(peer)
    got.put((peer.request.path, messages))


def test_one_message_each(serve):
    port, got = serve(read_all)
    sink = websocket_sink(f"ws://127.0.0.1:{port}/in?x=1", opening=lambda: b"open")
    sink.write(b"a", b"b\xff")
    sink.write(b"c" * 100_000)
    sink.close()
    assert got.get(timeout=DEADLINE) == ("/in?x=1", [b"open", b"a", b"b\xff", b"c" * 100_000])


def test_text_where_it_is_text(serve):
    port, got = serve(read_all)
    sink = websocket_sink(f"ws://127.0.0.1:{port}/", text=True)
    sink.write('{"a": "é"}\n'.encode(), b"\xff")
    sink.close()
    assert got.get(timeout=DEADLINE) == ("/", ['{"a": "é"}\n', b"\xff"])


def test_it_connects_again(serve):
    def behave(peer, got):
        if not seen:
            seen.append(peer.recv(timeout=DEADLINE))
            peer.close(1001)
        else:
            read_all(peer, got)

    seen = []
    port, got = serve(behave)
    sink = websocket_sink(f"ws://127.0.0.1:{port}", pauses=FAST, linger=DEADLINE)
    first = sink._link
    sink.write(b"0")
    limit = time.monotonic() + DEADLINE
    while sink._link is first and time.monotonic() < limit:
        if seen:
            sink.write(b"more")
    sink.write(b"last")
    sink.close()
    assert seen == [b"0"]
    _, messages = got.get(timeout=DEADLINE)
    assert messages[-1] == b"last"
    assert set(messages[:-1]) <= {b"0", b"more"}


def test_a_server_that_talks(serve):
    def behave(peer, got):
        for _ in range(200):
            peer.send("unasked" * 10)
        got.put("said")
        read_all(peer, got)

    port, got = serve(behave)
    sink = websocket_sink(f"ws://127.0.0.1:{port}")
    assert got.get(timeout=DEADLINE) == "said"
    sink.write(b"one")
    sink.close()
    assert got.get(timeout=DEADLINE) == ("/", [b"one"])


def test_what_is_sent_is_never_logged(serve, caplog):
    port, got = serve(read_all, logger=logging.getLogger("silent-server"))
    logging.getLogger("silent-server").setLevel(logging.CRITICAL)
    with caplog.at_level(logging.DEBUG):
        sink = websocket_sink(f"ws://127.0.0.1:{port}")
        sink.write(b"payload-of-somebody")
        sink.close()
        got.get(timeout=DEADLINE)
    assert "payload-of-somebody" not in caplog.text


@pytest.mark.needs("program:openssl")
def test_tls(serve, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:P-256", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    port, got = serve(read_all, ssl=server)
    with pytest.raises(SinkError, match="certificate verify failed"):
        websocket_sink(f"wss://localhost:{port}/")
    trusting = ssl.create_default_context(cafile=str(certificate))
    sink = websocket_sink(f"wss://localhost:{port}/", tls=trusting)
    sink.write(b"secret")
    sink.close()
    assert got.get(timeout=DEADLINE) == ("/", [b"secret"])


def test_refused(serve):
    port, _ = serve(read_all, process_request=lambda peer, _: peer.respond(403, "no"))
    with pytest.raises(SinkError, match=rf"ws://127.0.0.1:{port}/: cannot be reached .*403"):
        websocket_sink(f"ws://user:pass@127.0.0.1:{port}/?token=x")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        websocket_sink("ws://127.0.0.1:1/")
    assert "pyecapture[forward]" in caught.value.hint


def test_urls_are_shown_without_secrets():
    assert shown_url("wss://u:p@h:1/a?token=x") == "wss://h:1/a"
