# SPDX-License-Identifier: Apache-2.0
"""Programs that carry a TLS library without names, and programs that keep it from sockets.

What one peer wrote is what the other one read, byte by byte, between the same addresses. Peers are
started first and told what to do when their library has been hooked.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from keyed import PROGRAMS, LibraryClient, Obeying, Talker, packages, unpacked

from ecapture.kernel.feature import feature

pytestmark = CAPTURES
LARGE = 32 * 1024  # times a token of 32 bytes: 1 MiB
# Addresses of those who keep the library from sockets need typed tracepoints.
INFERS = bool(feature("tp_btf:sock_send_length"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture
def token():
    return uuid.uuid4().hex


class Streams:
    """What was captured, by process and conversation."""

    def __init__(self, path, *pids):
        self.pieces = {}
        for line in Path(path).read_text().splitlines():
            event = json.loads(line)
            if event["type"] == "plaintext" and event["pid"] in pids:
                assert (event["missing"], event["assumed"]) == ("", False)
                self.pieces.setdefault((event["pid"], event["conversation"]), []).append(event)

    def of(self, pid):
        """(local, remote, how found, written, read) of each conversation of a process."""
        found = []
        for (owner, _), events in self.pieces.items():
            if owner != pid:
                continue
            ends = {json.dumps(event["connection"], sort_keys=True) for event in events}
            assert len(ends) == 1, ends
            moved = {"write": b"", "read": b""}
            for event in events:
                assert event["stream_offset"] == len(moved[event["direction"]])
                moved[event["direction"]] += octets(event)
            ends = json.loads(ends.pop()) or {"found_by": event["no_connection"]}
            local, remote = (
                f"{ends.get(side)}:{ends.get(side + '_port')}" for side in ("local", "remote")
            )
            found.append((local, remote, ends["found_by"], moved["write"], moved["read"]))
        return found


def octets(event):
    if "text" in event:
        return event["text"].encode()
    return base64.b64decode(event["data_base64"])


def assert_mirrored(streams, client, server, count=1, unread=0):
    """Both peers tell the same of each conversation; returns those of the client.

    ``unread``: so many bytes that were written last need not have been read by the end.
    """
    mine, theirs = streams.of(client), streams.of(server)
    assert len(mine) == len(theirs) == count
    seen = {(remote, local): (read, written) for local, remote, _, written, read in theirs}
    for local, remote, _, written, read in mine:
        heard, said = seen[local, remote]
        assert (heard, read) == (written[: len(heard)], said[: len(read)])
        assert len(written) - len(heard) <= unread
        assert len(said) - len(read) <= unread
    return mine


@contextmanager
def captured(capture, *pids, files=()):
    """A capture of these processes, in whose files the functions have been found."""
    options = [word for pid in pids for word in ("--pid", pid)]
    with capture("--raw", "-d", *options, mode="jsonl", raw=False) as run:
        for file in files:
            run.wait_attached(file)
        yield run


@contextmanager
def https_pair(certificate, program):
    """A server and a client of ``https_peers.js``, each in a process that runs ``program``."""
    words = (program, PROGRAMS / "https_peers.js")
    with servers.running(*words, "server", *certificate) as server:
        port = int(server.stdout.readline())
        with Talker(*words, "client", certificate.certificate, port) as client:
            client.said.wait_for(lambda line: line == "ready\n", "ready")
            yield client, server, port


def do(client, line):
    before = len(client.said.so_far())
    client.tell(line)
    wait_until(
        lambda: len(client.said.so_far()) > before or client.process.poll() is not None, line
    )
    assert client.said.so_far()[before:] == ["same\n"]


@pytest.mark.skipif(not INFERS, reason="needs tp_btf:sock_send_length")
@pytest.mark.parametrize("key", ["node-18", "node-24"])
def test_node_at_both_ends(key, capture, certificate, token):
    """Exported functions, memory BIOs: addresses are inferred."""
    program = packages.fetch(key)
    program.chmod(0o755)
    with https_pair(certificate, program) as (client, server, port):
        pids = (client.process.pid, server.pid)
        with captured(capture, *pids) as run:
            do(client, f"send {token} 1")
            do(client, f"send {token} {LARGE}")
            run.finish()
    streams = Streams(run.path, *pids)
    small, large = assert_mirrored(streams, *pids, count=2)
    assert {one[1] for one in (small, large)} == {f"127.0.0.1:{port}"}
    assert {one[2] for one in (small, large)} == {"inferred"}
    assert small[3].endswith(b"\r\n\r\n" + token.encode())
    assert large[4].count(token.encode()) == LARGE
    assert run.summary["lost"] == 0


def test_bun_at_both_ends(capture, certificate, token):
    """A stripped BoringSSL without a table of functions, in a program of a hundred megabytes."""
    program = packages.fetch("boringssl-bun")
    program.chmod(0o755)
    with https_pair(certificate, program) as (client, server, port):
        pids = (client.process.pid, server.pid)
        with captured(capture, *pids, files=[program]) as run:
            do(client, f"send {token} 1")
            do(client, f"send {token} {LARGE}")
            run.finish()
    small, large = assert_mirrored(Streams(run.path, *pids), *pids, count=2)
    assert {one[1] for one in (small, large)} == {f"127.0.0.1:{port}"}
    assert small[3].endswith(b"\r\n\r\n" + token.encode())
    assert large[4].count(token.encode()) == LARGE
    assert run.summary["lost"] == 0


@pytest.mark.skipif(not INFERS, reason="needs tp_btf:sock_send_length")
def test_asyncio_at_both_ends(capture, certificate, token):
    words = (PROGRAMS / "asyncio_peers.py", "server", *certificate)
    with servers.running(sys.executable, *words) as server:
        port = int(server.stdout.readline())
        with Obeying("asyncio_peers.py", "client", certificate.certificate, port) as client:
            pids = (client.process.pid, server.pid)
            with captured(capture, *pids) as run:
                assert client.do(f"send {token} 1") == "same"
                assert client.do(f"send {token} {LARGE}") == "same"
                assert client.do(f"pair {token}") == "same same"
                run.finish()
    found = assert_mirrored(Streams(run.path, *pids), *pids, count=4)
    assert {one[1:3] for one in found} == {(f"127.0.0.1:{port}", "inferred")}
    assert len({one[0] for one in found}) == 4
    assert sorted(len(one[3]) for one in found) == [36, 37, 37, 4 + 32 * LARGE]
    assert all(written == read for _, _, _, written, read in found)


def test_grpcio_at_both_ends(capture, certificate, wheels, token):
    """A stripped BoringSSL in an extension module, memory BIOs, threads of its own."""
    folder = unpacked("boringssl-grpcio", wheels)
    [library] = folder.glob("grpc/_cython/cygrpc*.so")
    environment = {"PYTHONPATH": str(folder), "GRPC_VERBOSITY": "NONE"}
    words = (sys.executable, PROGRAMS / "grpcio_peers.py", "server", *certificate)
    with servers.running(*words, env={**environment}) as server:
        port = int(server.stdout.readline())
        ask = ("client", certificate.certificate, port)
        with Obeying("grpcio_peers.py", *ask, **environment) as client:
            pids = (client.process.pid, server.pid)
            with captured(capture, *pids, files=[library]) as run:
                assert client.do(f"call {token} 1") == "same"
                assert client.do(f"call {token} {LARGE}") == "same"
                run.finish()
    # frames that close the connection: nobody waits for them
    small, large = assert_mirrored(Streams(run.path, *pids), *pids, count=2, unread=100)
    assert small[3].startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert small[3].count(token.encode()) == small[4].count(token.encode()) == 1
    assert large[4].count(token.encode()) > 0.9 * LARGE  # the others lie across two frames
    if INFERS:
        assert {one[1:3] for one in (small, large)} == {(f"127.0.0.1:{port}", "inferred")}


def stripped(original, place):
    """A copy of a shared library without its symbol table."""
    subprocess.run(["strip", "--strip-all", "-o", place, original], check=True)
    assert b"no symbols" in subprocess.run(["nm", place], capture_output=True, check=False).stderr
    return place


@pytest.mark.needs("program:openssl", "program:strip")
@pytest.mark.parametrize("key, how", [("openssl-4.0.3-static", "label")])
def test_pyopenssl_without_names(key, how, capture, certificate, wheels, tmp_path):
    """OpenSSL inside cryptography's only extension module, stripped."""
    folder = tmp_path / "site"
    shutil.copytree(unpacked(key, wheels), folder)
    [library] = folder.glob("cryptography/hazmat/bindings/_rust*.so")
    stripped(library, tmp_path / "stripped")
    shutil.move(tmp_path / "stripped", library)
    with (
        servers.s_server(certificate, "-rev") as (server, _said),
        Obeying("pyopenssl_client.py", PYTHONPATH=folder) as client,
    ):
        pids = (client.process.pid, server.process.pid)
        assert target_of(client.process.pid, library)["how"] == how
        with captured(capture, *pids, files=[library]) as run:
            assert client.do(f"connect {server.port}") == "TLSv1.3"
            assert client.do("say") == "olleh"
            run.finish()
    [(_, remote, _, written, read)] = assert_mirrored(Streams(run.path, *pids), *pids)
    assert (remote, written, read) == (f"127.0.0.1:{server.port}", b"hello\n", b"olleh\n")


def target_of(pid, library):
    """What ``ecapture targets`` says of a file in a process."""
    listed = json.loads(run_ecapture("targets", "--json", "--pid", pid).stdout)
    [found] = [target for target in listed if Path(target["file"]) == library]
    return found


@pytest.mark.needs("program:openssl", "program:strip")
def test_curl_cffi_without_names_and_a_server_that_uses_filters(
    capture, certificate, wheels, tmp_path
):
    """libcurl over BoringSSL, stripped; ``s_server -www`` reads and writes through BIO_f_ssl."""
    [library] = unpacked("boringssl-curl_cffi", wheels).glob("curl_cffi/_wrapper*.so")
    library = stripped(library, tmp_path / library.name)
    with (
        servers.s_server(certificate, "-www") as (server, _said),
        Obeying("libcurl_client.py", library) as client,
    ):
        pids = (client.process.pid, server.process.pid)
        found = target_of(client.process.pid, library)
        assert (found["visible"], found["how"], found["kind"]) == (True, "fingerprint", "boringssl")
        assert set(found["evidence"]) == set(found["functions"])
        with captured(capture, *pids, files=[library]) as run:
            assert client.do(f"get https://127.0.0.1:{server.port}/one 7") == "200"
            assert client.do(f"get https://127.0.0.1:{server.port}/two 6") == "200"
            run.finish()
    one, two = assert_mirrored(Streams(run.path, *pids), *pids, count=2)
    for (_, remote, _, written, read), path in ((one, b"/one"), (two, b"/two")):
        assert remote == f"127.0.0.1:{server.port}"
        assert written.startswith(b"GET " + path + b" HTTP/1.1\r\n")
        assert read.startswith(b"HTTP/1.0 200 ok\r\n")


@pytest.mark.needs("program:openssl", "program:curl")
def test_filters_of_bios_are_seen_once(capture, certificate):
    with servers.s_server(certificate, "-WWW") as (server, _said):
        client = ["curl", "--silent", "--insecure", "--http1.1"]
        with captured(capture, server.process.pid) as run:
            url = f"https://127.0.0.1:{server.port}/none"
            answer = subprocess.run(
                [*client, url], capture_output=True, timeout=DEADLINE, check=False
            )
            run.finish()
    [(_, _, how, written, read)] = Streams(run.path, server.process.pid).of(server.process.pid)
    assert how in ("descriptor", "nested_call")
    assert read.startswith(b"GET /none HTTP/1.1\r\n")
    assert written.endswith(answer.stdout)
    assert written.count(b"HTTP/1.0 ") <= 1


@pytest.mark.needs("program:openssl")
@pytest.mark.parametrize(
    "key, pattern",
    [
        ("openssl-1.0.2q", "psycopg2/.libs/libssl-*"),
        ("openssl-1.1.1b", "psycopg2/.libs/libssl-*"),
        ("openssl-3.4.1", "pycurl.libs/libssl-*"),
        ("openssl-3.5.4", "psycopg2_binary.libs/libssl-*"),
        ("openssl-3.6.5", "pycurl.libs/libssl-*"),
    ],
)
def test_libraries_of_wheels(key, pattern, capture, certificate, wheels):
    """psycopg2-binary 2.7.7, 2.8.2 and 2.9.11, pycurl: by name, through what they share or not."""
    [library] = unpacked(key, wheels).glob(pattern)
    with (
        servers.s_server(certificate, "-rev") as (server, _said),
        LibraryClient(library) as client,
    ):
        pids = (client.process.pid, server.process.pid)
        with captured(capture, *pids) as run:
            for _ in range(2):
                client.do(f"connect {server.port}")
                assert client.do("say") == "ok"
                assert client.do("close") == "ok"
            run.finish()
    for _, remote, how, written, read in assert_mirrored(Streams(run.path, *pids), *pids, count=2):
        assert (remote, how) == (f"127.0.0.1:{server.port}", "descriptor")
        assert (written, read) == (b"hello\n", b"olleh\n")


# All the texts that give OpenSSL away, and functions that name themselves without being it.
IMPOSTOR = r"""
const char *cipher = "%-30s %-7s Kx=%-8s Au=%-5s Enc=%-22s Mac=%-4s\n";
const char *version = "OpenSSL 3.0.13 30 Jan 2024";
const char *verify = "TLS 1.3, client CertificateVerify";
void ERR_set_debug(const char *file, int line, const char *function)
{
    static volatile long count;
    count += line + file[0] + function[0];
}
#define FUNCTION(name, text) int name(int a, int b) \
    { if (a < b) ERR_set_debug("ssl/ssl_lib.c", 7, text); return a; }
FUNCTION(one, "SSL_read") FUNCTION(two, "SSL_write")
FUNCTION(three, "ssl_read_internal") FUNCTION(four, "ssl_write_internal")
FUNCTION(five, "SSL_new")
"""


@pytest.mark.needs("program:gcc", "program:strip")
def test_an_impostor_is_listed_with_the_reason_and_left_alone(capture, tmp_path):
    library = tmp_path / "impostor.so"
    command = ["gcc", "-shared", "-fPIC", "-O2", "-s", "-x", "c", "-", "-o", library]
    subprocess.run(command, input=IMPOSTOR.encode(), check=True)
    program = "import ctypes, sys; x = ctypes.CDLL(sys.argv[1]); print(flush=True); input()"
    with servers.running(sys.executable, "-c", program, library) as process:
        process.stdout.readline()
        found = target_of(process.pid, library)
        assert (found["kind"], found["visible"], found["functions"]) == ("openssl", False, [])
        assert found["reason"].endswith("no function of it proves to be the one that reads")
        with capture("-d", "--pid", process.pid) as run:
            run.finish()
        assert f"attached file={library}" not in run.stderr
        assert f"{library} is not shown: " in run.stderr
        refused = run_ecapture("tls", "--libssl", library)
    assert refused.returncode == 4
    assert b"no function of it proves to be the one that reads" in refused.stderr
