# SPDX-License-Identifier: Apache-2.0
"""NSS: exact plaintext, addresses and keys of real programs, and nothing of what is not TLS."""

from __future__ import annotations

import json
import platform
import socket
import socketserver
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CAPTURES, DEADLINE, Captured, joined, run_ecapture, wait_until
from keyed import PROGRAMS, TLS_1_3, LibraryClient, Talker, key_server, labels, read_keys
from servers import (
    Certificate,
    Server,
    free_port,
    https_server,
    listens,
    make_certificate,
    running,
    trusting,
)

from ecapture.kernel.feature import feature

pytestmark = [
    CAPTURES,
    pytest.mark.needs("program:openssl", "program:tstclnt", "program:selfserv", "program:certutil"),
]
LIBRARIES = Path(f"/usr/lib/{platform.machine()}-linux-gnu")
VERSIONS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}
TUPLES = bool(feature("tp_btf:sock_send_length")) or bool(feature("kprobe"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def database(certificate, tmp_path_factory) -> str:
    """A certificate database of NSS with the certificate and its key in it."""
    folder = tmp_path_factory.mktemp("database")
    bundle, name = folder / "bundle.p12", f"sql:{folder}"
    for words in (
        ("certutil", "-N", "-d", name, "--empty-password"),
        (
            *("openssl", "pkcs12", "-export", "-name", "localhost", "-passout", "pass:"),
            *("-in", certificate.certificate, "-inkey", certificate.key, "-out", bundle),
        ),
        ("pk12util", "-i", bundle, "-d", name, "-W", "", "-K", ""),
    ):
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
    return name


class NsprClient(LibraryClient):
    """``programs/nspr_client.py``."""

    def __init__(self) -> None:
        Talker.__init__(self, sys.executable, PROGRAMS / "nspr_client.py")
        self._answers = 0
        self._answer()


def tstclnt(database: str, port: int, version: str) -> Talker:
    """NSS's own client; ``-o`` takes any certificate."""
    words = ["tstclnt", "-h", "127.0.0.1", "-p", port, "-d", database, "-o"]
    return Talker(*words, "-V", f"tls{version}:tls{version}")


@contextmanager
def selfserv(database: str, version: str):
    """NSS's own server; it answers a request with that request."""
    port = free_port()
    words = ["selfserv", "-n", "localhost", "-d", database, "-p", port]
    with running(*words, "-V", f"tls{version}:tls{version}") as process:
        wait_until(lambda: listens(port), "selfserv listens")
        yield Server(port, (process.pid,), process)


@contextmanager
def line_server():
    """Says lines in reverse, without TLS."""

    class Reverse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.strip()[::-1] + b"\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Reverse) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ends(events, local: str) -> set[str]:
    """The other ends that events of one process have."""
    return {e.destination if e.direction == local else e.source for e in events}


@pytest.mark.parametrize("version", VERSIONS)
def test_tstclnt(version, certificate, database, tmp_path):
    """Each line is there once, in order, with both ends; the keys are those of the peer."""
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with (
        key_server(certificate, theirs, f"-tls1_{version[2]}") as (server, _said),
        Captured(tmp_path, "-k", ours, probe="nss") as run,
        tstclnt(database, server.port, version) as client,
    ):
        for text in ("one is said", "two is said"):
            client.tell(text)
            client.said.wait_for(lambda line, text=text: text[::-1] in line, "the answer")
        wait_until(lambda: len(read_keys(ours)) >= len(VERSIONS[version]), "keys")
        run.finish()
    assert [(e.direction, e.payload) for e in run.shown()] == [
        ("write", b"one is said\n"),
        ("read", b"dias si eno\n"),
        ("write", b"two is said\n"),
        ("read", b"dias si owt\n"),
    ]
    assert {(e.pid, e.comm) for e in run.shown()} == {(client.process.pid, "tstclnt")}
    if TUPLES:
        assert ends(run.shown(), "write") == {f"127.0.0.1:{server.port}"}
    assert labels(read_keys(ours)) == VERSIONS[version]
    assert set(read_keys(ours)) == set(read_keys(theirs))
    assert run.summary["unreadable"] == run.summary["lost"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_selfserv(version, certificate, database, tmp_path):
    """The server's side, three connections."""
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    context = trusting(certificate)
    context.keylog_filename = str(theirs)
    request, answers, ports = b"GET / HTTP/1.0\r\n\r\n", [], []
    with (
        selfserv(database, version) as server,
        Captured(tmp_path, "-k", ours, "--pid", server.process.pid, probe="nss") as run,
    ):
        for _ in range(3):
            raw = socket.create_connection(("127.0.0.1", server.port))
            with context.wrap_socket(raw, server_hostname="localhost") as client:
                ports.append(client.getsockname()[1])
                client.sendall(request)
                answers.append(b"".join(iter(lambda c=client: c.recv(1 << 16), b"")))
        run.finish()
    for port, answer in zip(ports, answers, strict=True):
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        if TUPLES:
            assert joined(run.shown(direction="read", source=f"127.0.0.1:{port}")) == request
            assert joined(run.shown(direction="write", destination=f"127.0.0.1:{port}")) == answer
    assert joined(run.shown(direction="read")) == 3 * request
    assert joined(run.shown(direction="write")) == b"".join(answers)
    assert labels(read_keys(ours)) == sorted(3 * VERSIONS[version])
    assert set(read_keys(ours)) == set(read_keys(theirs))


@pytest.mark.parametrize("version", VERSIONS)
def test_many_handshakes_at_once(version, certificate, database, tmp_path):
    """Keys that several threads make at the same time are not taken for each other's."""
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    context = trusting(certificate)
    context.keylog_filename = str(theirs)

    def ask(number: int) -> tuple[bytes, bytes]:
        request = b"GET / HTTP/1.0\r\nNumber: %d\r\n\r\n" % number
        raw = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(request)
            return request, b"".join(iter(lambda: client.recv(1 << 16), b""))

    with (
        selfserv(database, version) as server,
        Captured(tmp_path, "-k", ours, "--pid", server.process.pid, probe="nss") as run,
        ThreadPoolExecutor(8) as pool,
    ):
        talks = list(pool.map(ask, range(48)))
        run.finish()
    assert labels(read_keys(ours)) == sorted(len(talks) * VERSIONS[version])
    assert set(read_keys(ours)) == set(read_keys(theirs))
    assert run.summary["flows"] == len(talks)
    if TUPLES:
        heard = {e.source: e.payload for e in run.shown(direction="read")}
        spoken = defaultdict(bytes)
        for event in run.shown(direction="write"):
            spoken[event.destination] += event.payload
        assert sorted((heard[end], spoken[end]) for end in heard) == sorted(talks)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mebibyte_both_ways(version, certificate, tmp_path):
    body = b"".join(b"%015d\n" % number for number in range(1 << 16))
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"Connection: close\r\n\r\n" + body
    given, taken = tmp_path / "given", tmp_path / "taken"
    given.write_bytes(request)
    with (
        https_server(certificate) as server,
        NsprClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="nspr") as run,
    ):
        client.do(f"connect {server.port} {version}")
        client.do(f"exchange {given} {taken}")
        run.finish()
    assert joined(run.shown(direction="write")) == request
    assert joined(run.shown(direction="read")) == taken.read_bytes()
    assert taken.read_bytes().endswith(body)
    assert run.summary["flows"] == 1
    if TUPLES:
        assert {e.destination for e in run.shown(direction="write")} == {f"127.0.0.1:{server.port}"}


def test_only_what_passes_through_tls(certificate, tmp_path):
    """Files, bare sockets and layers that are switched off are served by the same functions."""
    with (
        key_server(certificate, tmp_path / "theirs.log") as (server, _said),
        line_server() as plain,
        NsprClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="nss") as run,
    ):
        assert client.do(f"file {tmp_path / 'file'} in-a-file") == "in-a-file"
        for way, port in (("plain", plain), ("bare", plain), ("connect", server.port)):
            client.do(f"{way} {port} 1.3")
            assert client.do(f"say {way}-socket") == f"{way}-socket"[::-1]
            client.do("close")
        run.finish()
    assert [(e.direction, e.payload) for e in run.shown()] == [
        ("write", b"connect-socket\n"),
        ("read", b"tekcos-tcennoc\n"),
    ]
    assert run.summary["events"] == 2


def test_what_is_peeked_at_is_shown_once(certificate, tmp_path):
    with (
        key_server(certificate, tmp_path / "theirs.log") as (server, _said),
        NsprClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="nss") as run,
    ):
        client.do(f"connect {server.port} 1.3")
        assert client.do("peek first-look") == "kool-tsrif"
        run.finish()
    assert [(e.direction, e.payload) for e in run.shown()] == [
        ("write", b"first-look\n"),
        ("read", b"kool-tsrif\n"),
    ]


def test_a_handle_that_is_used_again_begins_anew(certificate, tmp_path):
    """NSS takes the memory of the connection it closed last for the next one."""
    with (
        key_server(certificate, tmp_path / "theirs.log") as (server, _said),
        NsprClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="nss") as run,
    ):
        for number in range(5):
            client.do(f"connect {server.port} 1.3")
            client.do(f"say number-{number}")
            client.do("close")
        run.finish()
    assert run.summary["flows"] == 5
    if TUPLES:
        assert len({e.source for e in run.shown(direction="write")}) == 5


@pytest.mark.parametrize("absent", ["uprobe_multi", "attach_cookie,uprobe_multi,bpf_loop"])
def test_as_on_older_kernels(absent, certificate, database, tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with (
        key_server(certificate, theirs) as (server, _said),
        Captured(tmp_path, "-k", ours, probe="nss", env={"ECAPTURE_WITHOUT": absent}) as run,
        tstclnt(database, server.port, "1.3") as client,
    ):
        client.tell("one is said")
        client.said.wait_for(lambda line: "dias si eno" in line, "the answer")
        run.finish()
    assert [e.payload for e in run.shown()] == [b"one is said\n", b"dias si eno\n"]
    assert set(read_keys(ours)) == set(read_keys(theirs))
    assert len(read_keys(ours)) == len(TLS_1_3)


def test_a_launched_command_in_the_timeline_of_all(certificate, database, tmp_path):
    """``ecapture all -- tstclnt``, as messages: one request and one answer, and the keys."""
    ours, request = tmp_path / "ours.log", tmp_path / "request"
    request.write_text("GET /of-nss HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    with https_server(certificate) as server:
        words = ["tstclnt", "-h", "127.0.0.1", "-p", server.port, "-d", database, "-o"]
        command = [*words, "-A", request]
        options = ("--only", "tls,nss", "-k", ours)
        with Captured(tmp_path, *options, probe="all", mode="jsonl", command=command) as run:
            run.finish(number=None)
    [exchange] = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    assert (exchange["type"], exchange["comm"]) == ("exchange", "tstclnt")
    assert (exchange["request"]["target"], exchange["response"]["status"]) == ("/of-nss", 200)
    assert labels(read_keys(ours)) == TLS_1_3


def test_targets_tell_how_it_was_found():
    with NsprClient() as client:
        done = run_ecapture("targets", "--json", "--pid", client.process.pid)
    rows = [row for row in json.loads(done.stdout) if row["kind"] == "nss"]
    assert [(Path(row["file"]).name, row["visible"], row["how"]) for row in rows] == [
        ("libssl3.so", True, "fingerprint")
    ]
    assert {"ssl_SecureRecv", "ssl_SecureSend"} <= set(rows[0]["functions"])
    assert rows[0]["probe"] == "nss"


def test_the_library_of_nspr_stands_for_the_one_beside_it(tmp_path, certificate):
    library = LIBRARIES / "libnspr4.so"
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with (
        key_server(certificate, theirs) as (server, _said),
        NsprClient() as client,
        Captured(tmp_path, "--nspr", library, "-k", ours, probe="nss") as run,
    ):
        client.do(f"connect {server.port} 1.3")
        client.do("say something")
        run.finish()
    assert [e.payload for e in run.shown()] == [b"something\n", b"gnihtemos\n"]
    assert set(read_keys(ours)) == set(read_keys(theirs))
    alone = tmp_path / "libnspr4.so"
    alone.write_bytes(library.read_bytes())
    done = run_ecapture("nss", "--nspr", alone)
    assert done.returncode == 2
    assert b"no libssl3.so beside" in done.stderr
