# SPDX-License-Identifier: Apache-2.0
"""Wireshark's own programs, given nothing but our file, decrypt every request that was made.

What was made is known from who made it: each request has a number of its own in its path.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from dissect import BY_CONTENT, ENVIRONMENT, facts, fields, values
from harness import CAPTURES, ECAPTURE, Captured, wait_until
from keyed import PROGRAMS, TLS_1_3, Obeying, labels, read_keys, s_client, unpacked
from servers import make_certificate, nginx, running, s_server

from packets import Packets

pytestmark = [
    CAPTURES,
    pytest.mark.needs("program:openssl", "program:curl", "program:tshark", "program:capinfos"),
]
nginx_serves = pytest.mark.needs("program:nginx")
TCP_FIN, TCP_SYN = 1, 2
PATHS = "http.request.uri || http2.headers.path"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def web(tmp_path, certificate):
    """nginx that serves one small file, with HTTP/2 for those who ask for it."""
    with nginx(tmp_path, certificate, http2=True) as server:
        (tmp_path / "nginx/files/file").write_text("hello\n")
        yield server


def curl(port, numbers, *options):
    """One curl that asks for some numbers, over as many connections as its options make of it."""
    words = ["curl", "-skf", *options]
    for number in numbers:
        words += ["-o", "/dev/null", f"https://127.0.0.1:{port}/file?{number}"]
    subprocess.run(words, check=True, timeout=60)


def requested(path):
    """The numbers in the paths of requests that tshark decrypts, counted."""
    shown = fields(path, PATHS, "http.request.uri", "http2.headers.path")
    found = [value for pair in shown for told in pair for value in told.split(",") if value]
    return Counter(int(one.partition("?")[2]) for one in found if "?" in one)


def made(*ranges):
    """As if each of these numbers had been asked for once."""
    return Counter(number for numbers in ranges for number in numbers)


@nginx_serves
@pytest.mark.parametrize("side", ["both", "curl", "nginx"])
def test_every_request_of_curl_to_nginx(web, side, tmp_path):
    """HTTP/1.1 and HTTP/2, TLS 1.2 and 1.3, alone and many at once; keys of either side do."""
    options = ("--comm", side) if side != "both" else ()
    with Packets(tmp_path, *options, port=web.port) as captured:
        for first, version in ((0, "1.2"), (100, "1.3")):
            tls = (f"--tlsv{version}", "--tls-max", version)
            for number in range(first, first + 10):
                curl(web.port, [number], "--http1.1", *tls)
            curl(web.port, range(first + 10, first + 20), "--http1.1", *tls)
            curl(web.port, range(first + 20, first + 40), "--http2", *tls)
            curl(web.port, range(first + 40, first + 80), "-Z", "--http1.1", *tls)
        captured.finish()
    assert requested(captured.path) == made(range(80), range(100, 180))
    assert captured.summary["packets_dropped"] == 0
    assert "secret after packets" not in captured.stderr
    assert facts(captured.path)["Number of interfaces in file"] == "1"


@nginx_serves
def test_a_hundred_connections_at_once(web, tmp_path):
    """Only the clients' keys, which come behind the packets: without waiting some would be late."""
    with Packets(tmp_path, "--comm", "curl", port=web.port) as captured:
        curls = [
            threading.Thread(
                target=curl, args=(web.port, range(first, first + 25), "-Z", "--http1.1")
            )
            for first in range(0, 100, 25)
        ]
        for one in curls:
            one.start()
        for one in curls:
            one.join()
        captured.finish()
    assert requested(captured.path) == made(range(100))


@pytest.mark.needs("program:node")
@pytest.mark.parametrize("protocol", ["https", "http2"])
def test_every_request_of_node(protocol, certificate, tmp_path):
    code = """
        const [protocol, cert, key] = process.argv.slice(1);
        const fs = require("fs"), web = require(protocol);
        const secure = {cert: fs.readFileSync(cert), key: fs.readFileSync(key)};
        const answer = (request, response) => response.end(request.url);
        const server = protocol == "http2"
            ? web.createSecureServer(secure, answer) : web.createServer(secure, answer);
        server.listen(0, "127.0.0.1", async () => {
            const port = server.address().port;
            const trusted = {rejectUnauthorized: false};
            const ask = {
                https: (path) => new Promise((done) => web.get(
                    {port, path, host: "127.0.0.1", agent: false, ...trusted},
                    (response) => response.resume().on("end", done))),
                http2: (path) => new Promise((done) => {
                    const session = web.connect("https://127.0.0.1:" + port, trusted);
                    session.request({":path": path}).resume().on("end",
                        () => session.close(done)).end();
                }),
            }[protocol];
            for (let number = 0; number < 20; number++) await ask("/?" + number);
            await Promise.all(Array.from({length: 30}, (_, n) => ask("/?" + (20 + n))));
            server.close();
        });
    """
    command = ("node", "-e", code, protocol, *certificate)
    with Captured(tmp_path, "-i", "lo", mode="pcap", command=command) as captured:
        captured.finish(number=None)
    assert requested(captured.path) == made(range(50))
    assert "secret after packets" not in captured.stderr


@nginx_serves
@pytest.mark.needs("program:wget")
def test_every_request_of_gnutls(web, tmp_path):
    """Debian's wget uses GnuTLS."""
    linked = subprocess.run(
        ["ldd", shutil.which("wget")], capture_output=True, text=True, check=True
    ).stdout
    if "libgnutls" not in linked:
        pytest.skip("this wget does not use GnuTLS")
    words = ["wget", "-q", "--no-check-certificate", "-O", "/dev/null"]
    words += [f"https://127.0.0.1:{web.port}/file?{number}" for number in range(5)]
    with Captured(tmp_path, "-i", "lo", mode="pcap", probe="gnutls", command=words) as captured:
        captured.finish(number=None)
    assert requested(captured.path) == made(range(5))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_tls_that_begins_within_a_connection(version, certificate, tmp_path_factory, tmp_path):
    """A PostgreSQL driver (psycopg2-binary 2.9.11) asks in the clear whether it may use TLS."""
    wheels = tmp_path_factory.mktemp("wheels")
    [libpq] = unpacked("openssl-3.5.4", wheels).glob("psycopg2_binary.libs/libpq-*")
    stub = (sys.executable, PROGRAMS / "postgres_stub.py", *certificate, tmp_path / "log", version)
    with (
        running(*stub) as server,
        Obeying("libpq_client.py", libpq, LD_LIBRARY_PATH=libpq.parent) as client,
    ):
        port, own = int(server.stdout.readline()), client.process.pid
        with Packets(tmp_path, "--pid", own, port=port) as captured:
            for _ in range(5):
                assert client.do(f"query {port}") == "42"
            captured.finish()
    told = fields(captured.path, "pgsql.query", "pgsql.query", decode_as=f"tcp.port=={port},pgsql")
    assert told == [["SELECT 42"]] * 5


@pytest.mark.parametrize("side", ["client", "server"])
def test_resumption_early_data_and_key_updates(side, certificate, tmp_path):
    """Requests in early data, before and after each side has updated its keys."""
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_text(_get(2))
    with s_server(certificate, "-early_data") as (started, heard):
        watched = ("--comm", "openssl") if side == "client" else ("--pid", started.process.pid)
        with Packets(tmp_path, *watched, port=started.port) as captured:
            with s_client(started.port, "-sess_out", session) as talker:
                wait_until(session.exists, "a session")
                talker.tell(_get(1))
                heard.wait_for(lambda line: "/?1 " in line, "the request")
                talker.tell("Q")
                talker.process.wait()
            with s_client(started.port, "-sess_in", session, "-early_data", early) as talker:
                heard.wait_for(lambda line: "/?2 " in line, "early data")
                talker.tell(_get(3))
                heard.wait_for(lambda line: "/?3 " in line, "the request")
                talker.tell("K")
                talker.said.wait_for(lambda line: "KEYUPDATE" in line, "KEYUPDATE")
                talker.tell(_get(4))
                heard.wait_for(lambda line: "/?4 " in line, "the request")
            captured.finish()
    assert requested(captured.path) == made(range(1, 5))


def _get(number):
    return f"GET /?{number} HTTP/1.1\r\nHost: localhost\r\n\r"


@nginx_serves
class TestFiles:
    def test_several_outputs_of_one_run(self, web, tmp_path):
        """Text to standard output, packets and keys to files."""
        packets, keys = tmp_path / "packets.pcapng", tmp_path / "keys.log"
        options = ("--comm", "curl", "-i", "lo", "--pcapfile", packets, "-k", keys)
        with Captured(tmp_path, *options, output=None, raw=False) as captured:
            curl(web.port, range(5), "--http1.1")
            captured.finish(text=b"")
            text = captured.process.stdout.read()
        assert [line.split()[1] for line in text.splitlines() if line.startswith("GET ")] == [
            f"/file?{number}" for number in range(5)
        ]
        assert requested(packets) == made(range(5))
        assert labels(read_keys(keys)) == TLS_1_3

    def test_to_a_reader_at_once(self, web, tmp_path):
        """``-w - | tshark -i -``: requests show while the capture runs."""
        words = ["tshark", "-l", "-n", *BY_CONTENT, "-i", "-", "-Y", "http.request", "-T", "fields"]
        with (
            Packets(tmp_path, "--comm", "curl", port=web.port, output="-") as captured,
            running(
                *(*words, "-e", "http.request.uri"),
                stdin=captured.process.stdout,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
            ) as reader,
        ):
            for number in range(3):
                curl(web.port, [number], "--http1.1")
                assert reader.stdout.readline().strip() == f"/file?{number}"
            captured.process.send_signal(signal.SIGINT)
            assert captured.process.wait(30) == 0

    def test_a_file_is_whole_up_to_the_last_flush_when_the_capture_is_killed(self, web, tmp_path):
        with Packets(tmp_path, "--comm", "curl", port=web.port) as captured:
            curl(web.port, range(10), "--http1.1")
            wait_until(lambda: len(values(captured.path, PATHS, "frame.number")) == 10, "packets")
            captured.process.kill()
            captured.process.wait()
        assert requested(captured.path) == made(range(10))
        assert set(values(captured.path, "frame", "frame.interface_name")) == {"lo"}

    def test_every_file_of_a_rotation_stands_alone(self, web, tmp_path):
        """What a file has from its first to its last packet is decrypted by it alone."""
        (tmp_path / "nginx/files/file").write_bytes(bytes(200_000))
        place = tmp_path / "captured"
        place.mkdir()
        options = ("--comm", "curl", "--eventrotatesize", 1)
        with Packets(
            tmp_path, *options, port=web.port, output=place / "packets.pcapng"
        ) as captured:
            for number in range(24):
                curl(web.port, [number], "--http1.1")
            captured.finish()
        files = sorted(place.iterdir())
        assert len(files) >= 4
        alone = Counter()
        for file in files:
            names = ("frame.interface_name", "tcp.flags", "tcp.srcport", "http.request.uri")
            shown = fields(file, "tcp", *names)
            assert {name for name, *_rest in shown} == {"lo"}
            begun, ended = (
                {port for _name, flags, port, _uri in shown if int(flags, 16) & flag}
                for flag in (TCP_SYN, TCP_FIN)
            )
            whole = begun & ended - {str(web.port)}
            numbers = [int(uri.partition("?")[2]) for *_rest, uri in shown if uri]
            assert len(numbers) >= len(whole), "those that are in it from end to end"
            alone.update(numbers)
        together = tmp_path / "together.pcapng"
        subprocess.run(["mergecap", "-a", "-w", together, *files], check=True)
        assert requested(together) == made(range(24))
        assert set(alone.values()) == {1}
        assert len(alone) >= 24 - len(files)


@pytest.fixture
def extcap(tmp_path):
    """Words that begin a command which finds ecapture in Wireshark's folder, and nobody else does.

    A mount of its own, because Wireshark takes no other folder from root.
    """
    folders = subprocess.run(
        ["tshark", "-G", "folders"], capture_output=True, text=True, check=True
    )
    [folder] = re.findall(r"^(?:Global )?Extcap path:\s+(\S+)$", folders.stdout, re.MULTILINE)
    place = tmp_path / "extcap"
    place.mkdir()
    (place / "ecapture").symlink_to(ECAPTURE)
    mounted = f"mount --bind {place} {folder} && exec " + '"$@"'
    return ("unshare", "--mount", "sh", "-c", mounted, "sh")


class TestWireshark:
    def test_it_lists_ecapture(self, extcap):
        listed = subprocess.run(
            [*extcap, "tshark", "-D"], env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout
        assert [line for line in listed.splitlines() if ". ecapture (" in line]

    @nginx_serves
    def test_it_captures_and_decrypts(self, web, extcap):
        """As by a double click: tshark starts the capture, stops it, and has the requests."""
        words = (
            *extcap,
            "tshark",
            "-l",
            "-n",
            *BY_CONTENT,
            "-i",
            "ecapture",
            "-f",
            f"tcp port {web.port}",
        )
        chosen = ("-o", "extcap.ecapture.ifname:lo", "-o", "extcap.ecapture.comm:curl")
        shown = ("-Y", "http.request", "-T", "fields", "-e", "http.request.uri")
        with running(*words, *chosen, *shown, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as reader:
            stop = threading.Event()
            asking = threading.Thread(target=ask_until, args=(web.port, stop))
            asking.start()
            try:
                first = int(reader.stdout.readline().partition("?")[2])
                following = int(reader.stdout.readline().partition("?")[2])
            finally:
                stop.set()
                asking.join()
            assert following == first + 1
            reader.send_signal(signal.SIGINT)
            assert reader.wait(60) == 0


def ask_until(port, stop):
    """Ever higher numbers, one after the other."""
    number = 0
    while not stop.is_set():
        curl(port, [number], "--http1.1")
        number += 1
