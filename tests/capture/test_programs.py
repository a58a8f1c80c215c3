# SPDX-License-Identifier: Apache-2.0
"""Programs as they are installed: what they say to each other is what is shown."""

from __future__ import annotations

import http.client
import subprocess
import sys
import uuid

import pytest
import servers
from harness import CAPTURES, DEADLINE, Lines, joined

pytestmark = CAPTURES


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def token():
    return f"tok-{uuid.uuid4().hex}"


def of(run, pid, direction):
    """The bytes of one direction of a process, which must all be of one connection."""
    events = run.shown(pid=pid, direction=direction)
    assert len({(e.source, e.destination) for e in events}) <= 1
    return joined(events)


def destinations(run, pid, direction):
    return {e.destination for e in run.shown(pid=pid, direction=direction)}


def curl(certificate, server, *options):
    words = ["curl", "--silent", "--show-error", "--http1.1", "--cacert", certificate.certificate]
    words += [*options, f"https://localhost:{server.port}/"]
    return subprocess.Popen(
        [*words, "--resolve", f"localhost:{server.port}:127.0.0.1"], stdout=subprocess.PIPE
    )


@pytest.mark.needs("program:curl")
def test_curl_and_cpython(capture, certificate, token):
    with servers.https_server(certificate) as server, capture() as run:
        client = curl(certificate, server, "--data-binary", token)
        answer, _ = client.communicate(timeout=DEADLINE)
        run.finish()
    assert answer.decode() == token
    request, response = of(run, client.pid, "write"), of(run, client.pid, "read")
    assert request.startswith(b"POST / HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + token.encode())
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\n" + token.encode())
    (accepted,) = server.pids
    assert of(run, accepted, "read") == request
    assert of(run, accepted, "write") == response
    assert destinations(run, client.pid, "write") == {f"127.0.0.1:{server.port}"}
    assert destinations(run, accepted, "read") == {f"127.0.0.1:{server.port}"}


def test_cpython_as_a_client(capture, certificate, token):
    program = (
        "import sys, ssl, urllib.request as r;"
        "c = ssl.create_default_context(cafile=sys.argv[2]);"
        "print(r.urlopen(sys.argv[1], sys.argv[3].encode(), context=c).read().decode())"
    )
    with servers.https_server(certificate) as server, capture("--comm", "python") as run:
        words = [sys.executable, "-c", program, f"https://localhost:{server.port}/"]
        with servers.running(*words, certificate.certificate, token) as client:
            assert client.communicate(timeout=DEADLINE)[0] == token + "\n"
        run.finish()
    assert of(run, client.pid, "write").endswith(b"\r\n\r\n" + token.encode())
    assert of(run, client.pid, "write") == of(run, server.process.pid, "read")
    assert of(run, client.pid, "read") == of(run, server.process.pid, "write")


@pytest.mark.needs("program:openssl")
def test_openssl_s_client_and_s_server(capture, certificate, token):
    with servers.s_server(certificate, "-naccept", "1") as (server, said), capture() as run:
        words = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{server.port}"]
        with servers.running(*words, stderr=subprocess.DEVNULL) as client:
            client.stdin.write(f"{token} to\n")
            client.stdin.flush()
            said.wait_for(lambda line: line == f"{token} to\n", "message of the client")
            server.process.stdin.write(f"{token} fro\n")
            server.process.stdin.flush()
            heard = Lines(client.stdout)
            heard.wait_for(lambda line: line == f"{token} fro\n", "message of the server")
        run.finish()
    for pid, direction, other in (
        (client.pid, "write", "to"),
        (server.process.pid, "read", "to"),
        (server.process.pid, "write", "fro"),
        (client.pid, "read", "fro"),
    ):
        assert of(run, pid, direction) == f"{token} {other}\n".encode()
    assert destinations(run, client.pid, "write") == {f"127.0.0.1:{server.port}"}
    assert {e.comm for e in run.shown(pid=client.pid)} == {"openssl"}


_NODE_SERVER = """
const https = require('https'), fs = require('fs');
const [certificate, key] = process.argv.slice(1).map(name => fs.readFileSync(name));
https.createServer({cert: certificate, key: key}, (request, response) => {
    let said = '';
    request.on('data', piece => said += piece);
    request.on('end', () => response.end('heard ' + said));
}).listen(0, '127.0.0.1', function () { console.log(this.address().port); });
"""


@pytest.mark.needs("program:node")
def test_node_carries_its_own_library(capture, certificate, token):
    with servers.running("node", "-e", _NODE_SERVER, *certificate) as process:
        server = servers.Server(int(process.stdout.readline()), (process.pid,), process)
        with capture() as run:
            client = curl(certificate, server, "--data-binary", token)
            assert client.communicate(timeout=DEADLINE)[0] == f"heard {token}".encode()
            run.finish()
    request, response = of(run, client.pid, "write"), of(run, client.pid, "read")
    assert request.endswith(token.encode())
    assert of(run, process.pid, "read") == request
    assert of(run, process.pid, "write") == response
    # node hands its socket to libuv: an address may be missing, but not another's
    assert destinations(run, process.pid, "read") <= {"?", f"127.0.0.1:{server.port}"}


@pytest.mark.needs("program:nginx")
def test_forked_workers_of_nginx(capture, certificate, token, tmp_path):
    with servers.nginx(tmp_path, certificate) as server:
        content = token.encode() * 20000
        (tmp_path / "nginx" / "files" / "large").write_bytes(content)
        with capture("--comm", "nginx") as run:
            for _ in range(10):
                client = http.client.HTTPSConnection(
                    "localhost", server.port, context=servers.trusting(certificate)
                )
                client.request("GET", f"/large?{token}")
                assert client.getresponse().read() == content
                client.close()
            run.finish()
    workers = {event.pid for event in run.shown()}
    assert workers <= set(server.pids)
    flows = {(e.pid, e.source, e.destination) for e in run.shown(direction="write")}
    assert len(flows) == 10
    for pid, source, destination in flows:
        ends = {"pid": pid, "source": source, "destination": destination}
        assert source == f"127.0.0.1:{server.port}"
        head, _, body = joined(run.shown(direction="write", **ends)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == content
        back = {"pid": pid, "source": destination, "destination": source}
        request = joined(run.shown(direction="read", **back))
        assert request.startswith(f"GET /large?{token} HTTP/1.1\r\n".encode())


@pytest.mark.needs("program:curl", "program:openssl", "program:node")
def test_several_programs_at_once(capture, certificate, token, peer):
    pair = peer("pair", "--wait-go")
    with (
        servers.https_server(certificate) as python,
        servers.running("node", "-e", _NODE_SERVER, *certificate) as process,
        capture() as run,
    ):
        node = servers.Server(int(process.stdout.readline()), (process.pid,), process)
        clients = [curl(certificate, s, "--data-binary", token) for s in (python, node) * 3]
        pair.run()
        for client in clients:
            assert token.encode() in client.communicate(timeout=DEADLINE)[0]
        run.finish()
    for client in clients:
        assert of(run, client.pid, "write").endswith(b"\r\n\r\n" + token.encode())
        assert token.encode() in of(run, client.pid, "read")
    everything = joined(run.shown(pid=pair.pid, direction="write"))
    assert len(everything) == len(pair.says("c")) + len(pair.says("s"))
    assert run.summary["lost"] == 0
