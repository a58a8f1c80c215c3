# SPDX-License-Identifier: Apache-2.0
"""HTTP/3: tshark, given nothing but our file, has every request and every answer.

Of each pair of programs one is seen by probes (OpenSSL with its own QUIC, or curl) and writes no
key log; the other, unless it is OpenSSL, too, is aioquic, which writes one and is not seen.
Wireshark 4.0 does not decode the headers of requests; pylsqpack does, where they need no table.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pylsqpack
import pytest
from dissect import fields
from harness import CAPTURES, Captured, joined
from keyed import PROGRAMS, TLS_1_3, Obeying, labels, read_keys, unpacked
from servers import make_certificate, running

from packets import Packets

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl", "program:tshark")]
DATA, HEADERS = 0, 1  # frame types of HTTP/3 (RFC 9114, section 7.2)
COUNT = 10
# A hello with a post-quantum key share takes two datagrams, one without a single one.
SHORT_HELLO = "X25519"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def libssl(tmp_path_factory):
    """OpenSSL 3.5: the first whose QUIC has a server, too."""
    wheel = unpacked("openssl-3.5.4", tmp_path_factory.mktemp("wheels"))
    [library] = wheel.glob("psycopg2_binary.libs/libssl-*")
    return library


class Http3(Obeying):
    """``programs/openssl_http3.py`` as a client."""

    def __init__(self, library, *groups):
        words = (library, "get", *groups)
        super().__init__("openssl_http3.py", *words, LD_LIBRARY_PATH=library.parent)

    def get(self, port, numbers):
        """One connection for each number; what is answered is the path."""
        for number in numbers:
            assert self.do(f"get {port} /number-{number}") == f"/number-{number}"


@contextmanager
def serving(library, certificate, *options):
    """``programs/openssl_http3.py`` as a server: its port and its pid."""
    words = (
        sys.executable,
        PROGRAMS / "openssl_http3.py",
        library,
        "serve",
        *certificate,
        *options,
    )
    with running("env", f"LD_LIBRARY_PATH={library.parent}", *words) as server:
        yield int(server.stdout.readline()), server.pid


@contextmanager
def aioquic(certificate, keys):
    """``programs/http3_server.py``: its port."""
    words = (sys.executable, PROGRAMS / "http3_server.py", *certificate, keys)
    with running(*words) as server:
        yield int(server.stdout.readline())


def frames(path, direction, wanted):
    """The content of all frames of one type, in order; what was sent again counts once."""
    names = ("udp.port", "http3.frame_type", "http3.frame_payload")
    found = {
        (ports, bytes.fromhex(payload)): None
        for ports, kinds, payloads in fields(path, f"http3 && {direction}", *names)
        for kind, payload in zip(kinds.split(","), payloads.split(","), strict=True)
        if kind and int(kind, 0) == wanted
    }
    return [payload for _ports, payload in found]


def check(path, port, count=COUNT, *, literal=True):
    """Every request is there, and its answer, once and in order."""
    made = [f"/number-{number}".encode() for number in range(count)]
    requests = frames(path, f"udp.dstport == {port}", HEADERS)
    assert len(requests) == count
    if literal:
        assert [path_of(block) for block in requests] == made
    assert frames(path, f"udp.srcport == {port}", DATA) == made


def path_of(block):
    """The path that the header block of a request asks for, which refers to no table."""
    _instructions, fields_ = pylsqpack.Decoder(0, 0).feed_header(0, block)
    return dict(fields_)[b":path"]


def check_keys(ours, peers):
    """The lines of both ends are the same, but aioquic writes none for the exporter."""
    lines = read_keys(ours)
    assert labels(lines) == sorted(COUNT * TLS_1_3)
    without = [line for line in lines if not line.startswith("EXPORTER_SECRET ")]
    assert sorted(without) == sorted(read_keys(peers))


@pytest.mark.parametrize(
    "key, libcurl, libssl",
    [
        ("boringssl-curl_cffi", "curl_cffi/_wrapper*.so", "curl_cffi/_wrapper*.so"),
        ("openssl-3.6.5", "pycurl.libs/libcurl-*", "pycurl.libs/libssl-*"),
    ],
    ids=["BoringSSL", "ngtcp2 with OpenSSL"],
)
def test_curl(key, libcurl, libssl, certificate, tmp_path_factory, tmp_path):
    """The libcurl of curl_cffi, or of pycurl, asks, aioquic answers."""
    peers, keys = tmp_path / "server.log", tmp_path / "ours.log"
    wheel = unpacked(key, tmp_path_factory.mktemp("wheels"))
    [library], [tls] = wheel.glob(libcurl), wheel.glob(libssl)
    paths = {"LD_LIBRARY_PATH": tls.parent}
    with (
        aioquic(certificate, peers) as port,
        Obeying("libcurl_client.py", library, **paths) as client,
    ):
        options = ("-d", "-k", keys, "--pid", client.process.pid)
        with Packets(tmp_path, *options, port=port) as captured:
            captured.errors.wait_for(lambda line: f"attached keys={tls}" in line, "the library")
            for number in range(COUNT):
                assert client.do(f"get https://127.0.0.1:{port}/number-{number} h3") == "200"
            captured.finish()
    # curl puts headers into a table that it sends beside; the answers repeat the paths
    check(captured.path, port, literal=False)
    check_keys(keys, peers)


@pytest.mark.parametrize("groups", [(), (SHORT_HELLO,)], ids=["two datagrams", "one datagram"])
def test_a_client_of_openssl(groups, certificate, libssl, tmp_path):
    """OpenSSL asks, aioquic answers; the client's hello takes one datagram or two."""
    peers, keys = tmp_path / "server.log", tmp_path / "ours.log"
    with aioquic(certificate, peers) as port, Http3(libssl, *groups) as client:
        options = ("-k", keys, "--pid", client.process.pid)
        with Packets(tmp_path, *options, port=port) as captured:
            client.get(port, range(COUNT))
            captured.finish()
    check(captured.path, port)
    check_keys(keys, peers)
    assert "secret after packets" not in captured.stderr


def test_a_server_of_openssl(certificate, libssl, tmp_path):
    """aioquic asks, OpenSSL answers.

    No Retry, after which aioquic says another hello (against RFC 9000, section 17.2.5.3), which
    Wireshark then takes for the first one again.
    """
    peers, keys = tmp_path / "client.log", tmp_path / "ours.log"
    with (
        serving(libssl, certificate, "trusting") as (port, pid),
        Obeying("http3_client.py", peers) as client,
        Packets(tmp_path, "-k", keys, "--pid", pid, port=port) as captured,
    ):
        for number in range(COUNT):
            assert client.do(f"get {port} /number-{number}") == f"/number-{number}"
        captured.finish()
    check(captured.path, port)
    check_keys(keys, peers)


def test_both_ends_of_openssl(certificate, libssl, tmp_path):
    """With a Retry; each line is there once, though both tell it; packets have both processes."""
    keys = tmp_path / "ours.log"
    with serving(libssl, certificate) as (port, pid), Http3(libssl, SHORT_HELLO) as client:
        own = client.process.pid
        with Packets(tmp_path, "-k", keys, "--pid", pid, "--pid", own, port=port) as captured:
            client.get(port, range(COUNT))
            captured.finish()
    check(captured.path, port)
    assert len(fields(captured.path, "quic.long.packet_type == 3", "frame.number")) == COUNT
    assert labels(read_keys(keys)) == sorted(COUNT * TLS_1_3)
    comments = {tuple(told) for told in fields(captured.path, "http3", "frame.comment")}
    pids = {tuple(int(word) for word in told.split() if word.isdecimal()) for [told] in comments}
    assert pids == {(own, pid), (pid, own)}


def test_streams_of_openssl_as_text(certificate, libssl, tmp_path):
    """What a program writes to and reads from streams is there without packets, too."""
    with (
        aioquic(certificate, tmp_path / "keys") as port,
        Http3(libssl) as client,
        Captured(tmp_path, "--pid", client.process.pid) as captured,
    ):
        client.get(port, [7])
        captured.finish()
    settings, answer = b"\0\4\5\6\x80\0\x40\0", b"\0\x09/number-7"
    written = [event.payload for event in captured.shown(direction="write")]
    assert settings in written
    assert [payload[0] for payload in written if payload != settings] == [HEADERS]
    assert joined(captured.shown(direction="read")).endswith(answer)
