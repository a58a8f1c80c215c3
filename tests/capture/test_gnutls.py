# SPDX-License-Identifier: Apache-2.0
"""GnuTLS: exact plaintext, addresses and keys of its own programs, of wget, and of rarer calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from harness import CAPTURES, Captured, joined, wait_until
from keyed import PROGRAMS, TLS_1_3, LibraryClient, Talker, key_server, labels, read_keys
from servers import Certificate, Server, free_port, https_server, listens, make_certificate, running

from ecapture.kernel.feature import feature

pytestmark = [
    CAPTURES,
    pytest.mark.needs("program:openssl", "program:gnutls-cli", "program:gnutls-serv"),
]
VERSIONS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}
TUPLES = bool(feature("tp_btf:sock_send_length")) or bool(feature("kprobe"))
MEBIBYTE = b"".join(b"%015d\n" % number for number in range(1 << 16))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class GnutlsClient(LibraryClient):
    """``programs/gnutls_client.py``."""

    def __init__(self) -> None:
        Talker.__init__(self, sys.executable, PROGRAMS / "gnutls_client.py")
        self._answers = 0
        self._answer()


@contextmanager
def gnutls_serv(certificate: Certificate, keys: object, *options: object):
    """GnuTLS's own server, which says what it hears, and writes a key log of its own."""
    port = free_port()
    words = ["gnutls-serv", "--quiet", "--echo", "--port", port, *options]
    words += ["--x509certfile", certificate.certificate, "--x509keyfile", certificate.key]
    with running(*words, env=os.environ | {"SSLKEYLOGFILE": str(keys)}) as process:
        wait_until(lambda: listens(port), "gnutls-serv listens")
        yield Server(port, (process.pid,), process)


def gnutls_cli(port: int, version: str, *options: object) -> Talker:
    """GnuTLS's own client."""
    wanted = ("--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}")
    return Talker("gnutls-cli", "--insecure", "--port", port, "localhost", *wanted, *options)


def said(run: Captured, pid: int) -> list[tuple[str, bytes]]:
    """What one process wrote and read, in order."""
    return [(e.direction, e.payload) for e in run.shown(pid=pid)]


@pytest.mark.parametrize("version", VERSIONS)
def test_its_own_programs(version, certificate, tmp_path):
    """Both processes, each line once, in order; the keys of both are those of the server."""
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with (
        gnutls_serv(certificate, theirs) as server,
        Captured(tmp_path, "-k", ours, probe="gnutls") as run,
        gnutls_cli(server.port, version) as client,
    ):
        for text in ("one is said", "two is said"):
            client.said.wait_for(lambda line: "Simple Client Mode" in line, "the connection")
            client.tell(text)
            client.said.wait_for(lambda line, text=text: line.strip() == text, "the echo")
        wait_until(lambda: len(read_keys(ours)) >= len(VERSIONS[version]), "keys")
        run.finish()
    lines = [b"one is said\n", b"two is said\n"]
    there = [(way, line) for line in lines for way in ("write", "read")]
    here = [(way, line) for line in lines for way in ("read", "write")]
    assert said(run, client.process.pid) == there
    assert said(run, server.process.pid) == here
    if TUPLES:
        [end] = {e.source for e in run.shown(pid=client.process.pid, direction="write")}
        assert {e.destination for e in run.shown(direction="write", source=end)} == {
            f"127.0.0.1:{server.port}"
        }
        assert {e.source for e in run.shown(pid=server.process.pid, direction="read")} == {end}
    assert labels(read_keys(ours)) == VERSIONS[version]
    assert set(read_keys(ours)) == set(read_keys(theirs))
    assert run.summary["flows"] == 2
    assert run.summary["lost"] == run.summary["unreadable"] == 0


def test_early_data(certificate, tmp_path):
    """It is shown when the handshake sends it, not when it is kept for that; and where it comes."""
    early, theirs = tmp_path / "early", tmp_path / "theirs.log"
    early.write_text("said before the handshake was over\n")
    with (
        gnutls_serv(certificate, theirs, "--earlydata", "--maxearlydata", 4096) as server,
        Captured(tmp_path, probe="gnutls") as run,
        gnutls_cli(server.port, "1.3", "--resume", "--earlydata", early) as client,
    ):
        client.said.wait_for(lambda line: "Simple Client Mode" in line, "the connection")
        assert "*** This is a resumed session\n" in client.said.so_far()
        client.tell("said later")
        client.said.wait_for(lambda line: line.strip() == "said later", "the echo")
        run.finish()
    assert said(run, client.process.pid) == [
        ("write", early.read_bytes()),
        ("write", b"said later\n"),
        ("read", b"said later\n"),
    ]
    assert said(run, server.process.pid) == [
        ("read", early.read_bytes()),
        ("read", b"said later\n"),
        ("write", b"said later\n"),
    ]
    if TUPLES:
        assert {e.destination for e in run.shown(direction="write", pid=client.process.pid)} == {
            f"127.0.0.1:{server.port}"
        }


@pytest.mark.parametrize("version", VERSIONS)
def test_corked_lines_are_shown_once_each(version, certificate, tmp_path):
    """As they are written; the functions that send them later are the same."""
    with (
        key_server(certificate, tmp_path / "theirs.log") as (server, _said),
        GnutlsClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="gnutls") as run,
    ):
        client.do(f"connect {server.port} {version}")
        assert client.do("corked one,two,three") == "eno,owt,eerht"
        assert client.do("say four") == "ruof"
        assert client.do("corked five,six") == "evif,xis"
        run.finish()
    assert [e.payload for e in run.shown(direction="write")] == [
        *(b"one\n", b"two\n", b"three\n", b"four\n", b"five\n", b"six\n")
    ]
    assert joined(run.shown(direction="read")) == b"eno\nowt\neerht\nruof\nevif\nxis\n"
    assert not run.lost()


def test_padded_records_are_shown_without_padding(certificate, tmp_path):
    with (
        key_server(certificate, tmp_path / "theirs.log") as (server, _said),
        GnutlsClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="gnutls") as run,
    ):
        client.do(f"connect {server.port} 1.3")
        assert client.do("padded by-send2") == "2dnes-yb"
        run.finish()
    assert said(run, client.process.pid) == [("write", b"by-send2\n"), ("read", b"2dnes-yb\n")]


def test_packets_are_shown_when_they_are_looked_into(certificate, tmp_path):
    """gnutls_record_recv_packet hands over no bytes, gnutls_packet_get does, here twice."""
    with (
        key_server(certificate, tmp_path / "theirs.log") as (server, _said),
        GnutlsClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="gnutls") as run,
    ):
        client.do(f"connect {server.port} 1.3")
        for text in ("handed-over", "and-another"):
            assert client.do(f"packet {text}") == text[::-1]
        assert client.do("say again") == "niaga"
        run.finish()
    expected = [b"revo-dednah\n", b"rehtona-dna\n", b"niaga\n"]
    assert [e.payload for e in run.shown(direction="read")] == expected
    assert {e.destination for e in run.shown(direction="write")} == {f"127.0.0.1:{server.port}"}
    assert run.summary["unreadable"] == 0
    assert run.summary["flows"] == 1
    assert not run.lost()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mebibyte_both_ways(version, certificate, tmp_path):
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(MEBIBYTE)}\r\n"
    request = head.encode() + b"Connection: close\r\n\r\n" + MEBIBYTE
    given, taken = tmp_path / "given", tmp_path / "taken"
    given.write_bytes(request)
    with (
        https_server(certificate) as server,
        GnutlsClient() as client,
        Captured(tmp_path, "--pid", client.process.pid, probe="gnutls") as run,
    ):
        client.do(f"connect {server.port} {version}")
        client.do(f"exchange {given} {taken}")
        run.finish()
    assert joined(run.shown(direction="write")) == request
    assert joined(run.shown(direction="read")) == taken.read_bytes()
    assert taken.read_bytes().endswith(MEBIBYTE)
    assert run.summary["flows"] == 1
    assert {e.destination for e in run.shown(direction="write")} == {f"127.0.0.1:{server.port}"}


@pytest.mark.needs("program:wget")
@pytest.mark.parametrize("version", VERSIONS)
def test_wget(version, certificate, tmp_path):
    """A page of a mebibyte: every byte of every connection, its ends, and the server's keys."""
    linked = subprocess.run(
        ["ldd", shutil.which("wget")], capture_output=True, text=True, check=True
    ).stdout
    if "libgnutls" not in linked:
        pytest.skip("this wget does not use GnuTLS")
    ours, theirs, seen = tmp_path / "ours.log", tmp_path / "theirs.log", tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "page").write_bytes(MEBIBYTE)
    program = (sys.executable, PROGRAMS / "exact_server.py", *certificate, theirs, seen)
    with running(*program, tmp_path / "page") as server:
        port = server.stdout.readline().strip()
        words = ["wget", "-q", "--no-check-certificate", "-O", tmp_path / "got"]
        words += [f"--ciphers=NORMAL:-VERS-ALL:+VERS-TLS{version}"]
        words += [f"https://127.0.0.1:{port}/page"]
        with Captured(tmp_path, "-k", ours, probe="gnutls", command=words) as run:
            run.finish(number=None)
        [came] = seen.glob("*.in")
        wait_until(lambda: came.with_suffix(".out").exists(), "what the server keeps")
    assert (tmp_path / "got").read_bytes() == MEBIBYTE
    local = f"127.0.0.1:{came.stem}"
    assert came.read_bytes().startswith(b"GET /page HTTP/1.1\r\n")
    assert joined(run.shown(direction="write", source=local)) == came.read_bytes()
    went = came.with_suffix(".out").read_bytes()
    assert joined(run.shown(direction="read", destination=local)) == went
    assert {e.comm for e in run.shown()} == {"wget"}
    assert labels(read_keys(ours)) == VERSIONS[version]
    assert set(read_keys(ours)) == set(read_keys(theirs))


@pytest.mark.parametrize("absent", ["uprobe_multi", "attach_cookie,uprobe_multi,bpf_loop"])
def test_as_on_older_kernels(absent, certificate, tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    environment = {"ECAPTURE_WITHOUT": absent}
    with (
        key_server(certificate, theirs) as (server, _said),
        GnutlsClient() as client,
        Captured(
            *(tmp_path, "--pid", client.process.pid, "-k", ours),
            probe="gnutls",
            env=environment,
        ) as run,
    ):
        client.do(f"connect {server.port} 1.3")
        assert client.do("corked one,two") == "eno,owt"
        client.do("close")
        run.finish()
    assert [e.payload for e in run.shown(direction="write")] == [b"one\n", b"two\n"]
    assert joined(run.shown(direction="read")) == b"eno\nowt\n"
    assert set(read_keys(ours)) == set(read_keys(theirs))
