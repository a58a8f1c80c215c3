# SPDX-License-Identifier: Apache-2.0
"""HTTP/1 between real programs: every request and response whole, paired, decoded, and once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import servers
from harness import CAPTURES, DEADLINE
from talking import Talk, client, curl, finish, watch_talks

from ecapture.config import Limits, Scope
from ecapture.events import Exchange, Said
from ecapture.protocols.body import BODY_LIMIT
from ecapture.protocols.messages import Mark, Note, ServerEvent

pytestmark = CAPTURES


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def web(certificate):
    with servers.web_server(certificate) as server:
        yield server


def lines(count):
    return b"".join(b"line %d of %d\n" % (n, count) for n in range(count))


@pytest.mark.needs("program:curl", "program:nginx")
def test_curl_and_nginx_are_two_views_of_the_same(watch, certificate, tmp_path):
    sizes = {"empty": 0, "small": 100, "piece": 16384, "large": 300000}
    with servers.nginx(tmp_path, certificate) as server:
        for name, size in sizes.items():
            (tmp_path / "nginx/files" / name).write_bytes(name.encode() * (size // len(name)))
        with watch_talks(watch, Scope(comms=("curl", "nginx"))) as run:
            words = ["--http1.1", *[f"/{name}" for name in (*sizes, "missing")]]
            program = curl(certificate, server.port, *words)
            finish(program)
            events = run.finish()
    asked, served = Talk(events, program.pid), Talk(events, *server.pids)
    asked.assert_clean("client", 5)
    served.assert_clean("server", 5)
    assert asked.pairs() == served.pairs()
    for exchange in asked.exchanges:
        name = exchange.request.head.target[1:]
        assert exchange.response.head.status == (200 if name in sizes else 404)
        if name in sizes:
            assert exchange.response.body == name.encode() * (sizes[name] // len(name))
    # one connection, seen from both ends
    (near,) = {e.connection for e in asked.exchanges}
    (far,) = {e.connection for e in served.exchanges}
    assert (near.local, near.local_port) == (far.remote, far.remote_port)
    assert (near.remote, near.remote_port) == (far.local, far.local_port)
    assert {e.comm for e in asked.exchanges} == {"curl"}
    assert {e.comm for e in served.exchanges} == {"nginx"}


@pytest.mark.needs("program:curl")
def test_next_on_one_connection(watch, certificate, web):
    with watch_talks(watch, Scope(comms=("curl",))) as run:
        words = ["--http1.1", "/echo", "-d", "first", "--next", "/status/404"]
        words += ["--next", "-I", "/echo", "--next", "-X", "DELETE", "/echo"]
        program = curl(certificate, web.port, *words)
        finish(program)
        events = run.finish()
    talk = Talk(events, program.pid)
    talk.assert_clean("client", 4)
    assert len({e.conversation for e in talk.exchanges}) == 1
    assert [(e.request.head.method, e.response.head.status) for e in talk.exchanges] == [
        ("POST", 200),
        ("GET", 404),
        ("HEAD", 200),
        ("DELETE", 200),
    ]
    assert talk.exchanges[0].request.body == talk.exchanges[0].response.body == b"first"


@pytest.mark.needs("program:curl")
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "br", "zstd"])
def test_content_codings_are_undone(watch, certificate, web, coding):
    with watch_talks(watch, Scope(comms=("curl",))) as run:
        program = curl(certificate, web.port, "--compressed", f"/coded/{coding}/5000")
        shown = finish(program)
        events = run.finish()
    talk = Talk(events, program.pid)
    talk.assert_clean("client", 1)
    response = talk.exchanges[0].response
    assert response.body == shown == lines(5000)
    assert response.codings == (() if coding == "identity" else (coding,))
    assert response.decoded_size == len(shown)
    assert (response.size < len(shown) / 4) == (coding != "identity")


@pytest.mark.needs("program:curl")
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_uploads_are_counted_and_kept_to_their_limit(watch, certificate, web, tmp_path, how):
    size = 10 << 20
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * (size // 256))
    more = ["-H", "Transfer-Encoding: chunked"] if how == "chunked" else []
    scope = Scope(comms=("curl", "python"))
    with watch_talks(watch, scope, limits=Limits(ring=64 << 20)) as run:
        program = curl(
            certificate, web.port, "--http1.1", *more, "--data-binary", f"@{body}", "/size"
        )
        assert int(finish(program)) == size
        events = run.finish()
    for role, pid in (("client", program.pid), ("server", *web.pids)):
        talk = Talk(events, pid)
        talk.assert_clean(role, 1)
        request = talk.exchanges[0].request
        assert request.size == request.decoded_size == size
        assert request.body == body.read_bytes()[:BODY_LIMIT]


@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
def test_clients_of_python(watch, certificate, web, library):
    words = ["1", 20] if library == "httpx" else []
    with (
        client(library, certificate, web.port, *words) as program,
        watch_talks(watch, Scope(pids=(program.pid, *web.pids))) as run,
    ):
        seen = program.result()
        events = run.finish()
    asked, served = Talk(events, program.pid), Talk(events, *web.pids)
    asked.assert_clean("client", len(seen))
    served.assert_clean("server", len(seen))
    assert asked.pairs() == served.pairs()
    if library == "httpx":
        said = [text.encode() for _, text, _ in seen]
        assert [e.request.body for e in asked.exchanges] == said
    else:
        pieces = b"".join(b"piece %d;" % n for n in range(10))
        assert [e.request.body for e in asked.exchanges] == [pieces, pieces, b"whole"]
        assert asked.exchanges[1].response.body == b"%d" % len(pieces)


def test_server_sent_events_are_shown_one_by_one(watch, certificate, web):
    with watch_talks(watch, Scope(comms=("curl", "python"))) as run:
        program = curl(certificate, web.port, "--no-buffer", "/events/30", "/chunks/30")
        finish(program)
        events = run.finish()
    for role, pid in (("client", program.pid), ("server", *web.pids)):
        talk = Talk(events, pid)
        talk.assert_clean(role, 2)
        found = talk.of(ServerEvent)
        assert [(m.event, m.last_id, m.data) for m in found] == [
            ("tick", str(n), f"{n}\nmore") for n in range(30)
        ]
        assert talk.exchanges[0].response.body == b""
        assert talk.exchanges[1].response.body == lines(30)


@pytest.mark.needs("program:curl")
def test_http_in_a_tunnel_through_a_proxy(watch, certificate):
    script = servers.PROGRAMS / "tunnel_proxy.py"
    with servers.running(sys.executable, script, *certificate) as proxy:
        port, inner = (int(proxy.stdout.readline()) for _ in range(2))
        with watch_talks(watch, Scope(comms=("curl", "python"))) as run:
            words = ["curl", "--silent", "--show-error", "--proxytunnel"]
            words += ["--proxy", f"https://localhost:{port}"]
            words += ["--proxy-cacert", str(certificate.certificate)]
            words += [f"http://127.0.0.1:{inner}/{name}" for name in ("one", "two")]
            program = subprocess.Popen(words, stdout=subprocess.PIPE)
            assert finish(program) == b"/one/two"
            events = run.finish()
    for role, pid in (("client", program.pid), ("server", proxy.pid)):
        talk = Talk(events, pid)
        talk.assert_clean(role, 3)
        assert [(e.exchange, e.request.head.target, e.response.body) for e in talk.exchanges] == [
            (1, f"127.0.0.1:{inner}", b""),
            (2, "/one", b"/one"),
            (3, "/two", b"/two"),
        ]


def test_a_connection_older_than_the_capture_is_read_from_its_next_message(watch, certificate, web):
    with client("steps", certificate, web.port, "/echo") as program:
        program.step()
        with watch_talks(watch, Scope(pids=(program.pid, *web.pids))) as run:
            for _ in range(5):
                program.step()
            program.result()
            events = run.finish()
    for role, pid in (("client", program.pid), ("server", *web.pids)):
        talk = Talk(events, pid)
        talk.assert_clean(role, 6)
        assert [e.request.head.target for e in talk.exchanges] == [
            f"/echo?{n}" for n in range(1, 7)
        ]


_HALF_AN_UPLOAD = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
connection = http.client.HTTPSConnection("localhost", int(sys.argv[2]), context=context)
connection.putrequest("POST", "/size")
connection.putheader("Content-Length", "200000")
connection.endheaders()
connection.send(bytes(100000))
print("ready", flush=True)
sys.stdin.readline()
connection.send(bytes(100000))
print(connection.getresponse().read())
connection.request("POST", "/echo", "afterwards")
print(connection.getresponse().read())
"""


def test_a_capture_that_begins_within_content_finds_the_next_message(watch, certificate, web):
    words = (sys.executable, "-c", _HALF_AN_UPLOAD, certificate.certificate, web.port)
    with servers.running(*words) as process:
        assert process.stdout.readline() == "ready\n"
        with watch_talks(watch, Scope(pids=(process.pid, *web.pids))) as run:
            said, _ = process.communicate("go\n", timeout=DEADLINE)
            events = run.finish()
    assert said == "b'200000'\nb'afterwards'\n"
    for pid in (process.pid, *web.pids):
        talk = Talk(events, pid)
        last = talk.exchanges[-1]
        assert last.request.body == last.response.body == b"afterwards"
        assert not last.request.marks + last.response.marks
        assert 1 <= len(talk.exchanges) <= 2


def test_losses_are_marked_and_the_capture_goes_on(watch, certificate, web):
    with client("steps", certificate, web.port, "/coded/identity/40000") as program:
        # A buffer that holds a fraction of one answer: the reader comes by every 10 ms.
        limits = Limits(ring=1 << 16)
        with watch_talks(watch, Scope(pids=(program.pid, *web.pids)), limits=limits) as run:
            for _ in range(20):
                program.step()
            program.result()
            events = run.finish()
        assert run.capture.summary.lost > 0
    marked = set()
    for event in events:
        if isinstance(event, Exchange):
            for part in (event.request, event.response):
                marked |= set(part.marks) if part else set()
        elif isinstance(event, Said) and isinstance(event.message, Note):
            marked.add(event.message.mark)
    assert Mark.GAP in marked
    assert Mark.MALFORMED not in marked
    for pid in (program.pid, *web.pids):
        talk = Talk(events, pid)
        assert not talk.unparsed
        seen = [e.request.head.target for e in talk.exchanges if e.request]
        assert len(seen) == len(set(seen))
        whole = [e for e in talk.exchanges if e.response and not e.response.marks]
        for exchange in whole:
            assert exchange.response.body == lines(40000)[:BODY_LIMIT]
