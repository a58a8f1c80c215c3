# SPDX-License-Identifier: Apache-2.0
"""Key logs of the distribution's OpenSSL, against those that the other peer writes itself."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys

import pytest
from harness import CAPTURES, parse_text, run_ecapture, wait_until
from keyed import TLS_1_3, Keyed, Talker, key_server, labels, read_keys, s_client
from peers import installed_libssl
from servers import https_server, make_certificate, s_server

from ecapture.kernel.feature import feature

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl", "program:curl")]
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
ROUNDS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate, tmp_path):
    """An s_server, and the key log that it writes."""
    with key_server(certificate, tmp_path / "server.log") as (started, _said):
        yield started, tmp_path / "server.log"


def update_keys(talker, *commands):
    """Each command is read on its own: two in one read would be one."""
    for number, command in enumerate(commands, start=1):
        talker.tell(command)
        wait_until(
            lambda n=number: sum("KEYUPDATE" in line for line in talker.said.so_far()) >= n,
            "KEYUPDATE",
        )


class TestBothSides:
    @VERSIONS
    def test_a_server_is_watched_and_the_client_tells_the_truth(self, server, version, tmp_path):
        started, servers = server
        with Keyed(tmp_path, "--pid", started.process.pid) as captured:
            for round_ in range(3):
                client = tmp_path / f"client-{round_}.log"
                with s_client(started.port, f"-tls1_{version[2]}", "-keylogfile", client) as talker:
                    talker.tell("hello")
                    talker.said.wait_for(lambda line: "olleh" in line, "the answer")
            lines = captured.lines()
        logs = [read_keys(tmp_path / f"client-{n}.log") for n in range(3)]
        assert set(lines) == {line for log in logs for line in log}
        assert labels(lines) == sorted(3 * ROUNDS[version])
        assert lines == read_keys(servers), "in the order in which this process made them"

    @VERSIONS
    def test_a_client_is_watched_and_the_server_tells_the_truth(
        self, certificate, version, tmp_path
    ):
        servers, own = tmp_path / "server.log", tmp_path / "curl.log"
        with s_server(certificate, "-keylogfile", servers, "-www") as (started, _said):
            command = ["curl", "-sk", f"--tlsv{version}", "--tls-max", version, "-o", "/dev/null"]
            command.append(f"https://127.0.0.1:{started.port}/")
            with Keyed(tmp_path, command=command, env={"SSLKEYLOGFILE": str(own)}) as captured:
                captured.finish(number=None)
        lines = captured.lines()
        assert set(lines) == set(read_keys(servers))
        assert labels(lines) == ROUNDS[version]
        assert lines == read_keys(own), "in the order in which this process made them"


class TestSessions:
    @VERSIONS
    def test_a_resumed_session(self, server, version, tmp_path):
        started, servers = server
        session = tmp_path / "session"
        with Keyed(tmp_path, "--pid", started.process.pid) as captured:
            for option in ("-sess_out", "-sess_in"):
                words = (f"-tls1_{version[2]}", option, session)
                with s_client(started.port, *words) as talker:
                    talker.tell("hello")
                    talker.said.wait_for(lambda line: "olleh" in line, "the answer")
                    talker.tell("Q")
                    talker.process.wait()
                    told = "".join(talker.said.all())
            assert "Reused, TLSv" in told
            lines = captured.lines()
        assert lines == read_keys(servers)
        assert labels(lines) == sorted(2 * ROUNDS[version])

    def test_early_data(self, certificate, tmp_path):
        servers, session, early = (tmp_path / name for name in ("s.log", "session", "early"))
        early.write_text("early\n")
        # -rev knows no early data
        words = ["-keylogfile", servers, "-early_data"]
        with (
            s_server(certificate, *words) as (started, said),
            Keyed(tmp_path, "--pid", started.process.pid) as captured,
        ):
            with s_client(started.port, "-sess_out", session) as talker:
                wait_until(session.exists, "a session")
                talker.tell("Q")
                talker.process.wait()
            with s_client(started.port, "-sess_in", session, "-early_data", early) as talker:
                said.wait_for(lambda line: "early" in line and "Early" not in line, "early data")
                talker.tell("Q")
                talker.process.wait()
            lines = captured.lines()
        assert lines == read_keys(servers)
        assert labels(lines) == sorted(
            [*TLS_1_3, *TLS_1_3, "CLIENT_EARLY_TRAFFIC_SECRET", "EARLY_EXPORTER_SECRET"]
        )

    def test_key_updates(self, server, tmp_path):
        started, servers = server
        with Keyed(tmp_path, "--pid", started.process.pid) as captured:
            with s_client(started.port) as talker:
                update_keys(talker, "K", "k")
                talker.tell("hello")
                talker.said.wait_for(lambda line: "olleh" in line, "the answer")
            lines = captured.lines()
        assert sorted(lines) == sorted(read_keys(servers))
        assert len(lines) > len(TLS_1_3), "OpenSSL logs updated secrets, too"


@pytest.mark.skipif(not feature("attach_cookie"), reason="needs attach cookies")
class TestOlderConnections:
    @pytest.mark.parametrize(
        "version, updated",
        [("1.2", False), ("1.3", False), ("1.3", True)],
        ids=["1.2", "1.3", "1.3-updated"],
    )
    @pytest.mark.parametrize("side", ["client", "server"])
    def test_keys_come_with_the_next_call(self, certificate, version, side, updated, tmp_path):
        servers = tmp_path / "server.log"
        # not -rev, which goes past SSL_read and SSL_write
        with (
            s_server(certificate, "-keylogfile", servers) as (started, heard),
            s_client(started.port, f"-tls1_{version[2]}") as talker,
        ):
            if updated:
                update_keys(talker, "K", "K")
                talker.tell("first")
                heard.wait_for(lambda line: "first" in line, "the line")
            watched = talker if side == "client" else started
            with Keyed(tmp_path, "--pid", watched.process.pid) as captured:
                assert captured.keys.read_text() == ""
                talker.tell("hello")
                heard.wait_for(lambda line: "hello" in line, "the line")
                captured.wait_lines(len(ROUNDS[version]))
                lines = captured.lines()
        assert set(lines) == {line for line in read_keys(servers) if "_SECRET_N " not in line}
        assert captured.summary["unreadable"] == 0


_MANY = """
import asyncio, ssl, sys
certificate, key, folder, count = *sys.argv[1:4], int(sys.argv[4])
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(certificate, key)
server.keylog_filename = folder + "/server.log"
client = ssl.create_default_context(cafile=certificate)
client.keylog_filename = folder + "/client.log"
async def answer(reader, writer):
    writer.write(await reader.readline())
    writer.close()
async def ask(port, together):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client, server_hostname="localhost")
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    await together.wait()
    writer.close()
async def main():
    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    together = asyncio.Barrier(count)
    port = listening.sockets[0].getsockname()[1]
    await asyncio.gather(*(ask(port, together) for _ in range(count)))
asyncio.run(main())
"""


def test_a_hundred_connections_at_once(certificate, tmp_path):
    command = (sys.executable, "-c", _MANY, *certificate, tmp_path, 100)
    with Keyed(tmp_path, command=command) as captured:
        captured.finish(number=None)
    lines = captured.lines()
    assert labels(lines) == sorted(100 * TLS_1_3)
    assert set(lines) == set(read_keys(tmp_path / "client.log"))
    assert set(lines) == set(read_keys(tmp_path / "server.log"))
    assert captured.summary["lost"] == captured.summary["unreadable"] == 0


class TestOutput:
    def test_beside_the_text(self, certificate, tmp_path):
        command = (sys.executable, "-c", _MANY, *certificate, tmp_path, 3)
        text = tmp_path / "text"
        with Keyed(tmp_path, mode="text", output=text, command=command) as captured:
            captured.finish(number=None)
        assert sum(event.payload == b"hello\n" for event in parse_text(text.read_bytes())) == 12
        assert set(captured.lines()) == set(read_keys(tmp_path / "client.log"))

    def test_beside_messages_that_are_filtered(self, certificate, tmp_path):
        command = (sys.executable, "-c", _MANY, *certificate, tmp_path, 2)
        with Keyed(
            tmp_path,
            *("--filter", "status == 999", "--redact"),
            mode="jsonl",
            output=tmp_path / "x",
            command=command,
        ) as captured:
            captured.finish(number=None)
        assert (tmp_path / "x").read_text() == ""
        assert set(captured.lines()) == set(read_keys(tmp_path / "client.log"))

    def test_through_a_recording(self, certificate, tmp_path):
        command = (sys.executable, "-c", _MANY, *certificate, tmp_path, 2)
        recording, again = tmp_path / "recording", tmp_path / "again.log"
        with Keyed(tmp_path, mode="record", output=recording, command=command) as captured:
            captured.finish(number=None)
        done = run_ecapture("replay", recording, "-m", "key", "-k", again)
        assert done.returncode == 0, done.stderr
        assert again.read_bytes() == captured.keys.read_bytes()
        assert set(captured.lines()) == set(read_keys(tmp_path / "client.log"))

    def test_to_standard_output(self, certificate, tmp_path):
        command = [sys.executable, "-c", _MANY, *certificate, tmp_path, 1]
        done = run_ecapture("tls", "-m", "keylog", "-k", "-", "--", *command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines() == sorted(
            read_keys(tmp_path / "client.log"), key=done.stdout.decode().splitlines().index
        )

    def test_a_file_is_private_and_is_appended_to(self, certificate, tmp_path):
        default = tmp_path / "ecapture_openssl_key.log"
        command = [sys.executable, "-c", _MANY, *certificate, tmp_path, 1]
        for _ in range(2):
            done = run_ecapture("tls", "-m", "key", "--", *command, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert stat.S_IMODE(default.stat().st_mode) == 0o600
        # CPython appends to its key logs as well
        assert set(read_keys(default)) == set(read_keys(tmp_path / "client.log"))
        assert labels(read_keys(default)) == sorted(2 * TLS_1_3)

    def test_calls_that_read_and_write_are_not_probed(self, tmp_path):
        library = installed_libssl()
        with Keyed(tmp_path, "-d", "--libssl", library) as captured:
            captured.finish()
        told = re.search(rf"attached keys={library} kind=openssl functions=(\d+)", captured.stderr)
        # the log function; and four more where a process has the library mapped already
        assert told[1] in ("1", "5")
        assert "attached file=" not in captured.stderr

    @pytest.mark.parametrize(
        "words",
        [("-m", "keylog", "-w", "x"), ("-m", "text", "-k", "-"), ("-w", "x", "-k", "x")],
    )
    def test_what_cannot_be_is_refused(self, words, tmp_path):
        done = run_ecapture("tls", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert b"-k FILE" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_secrets_are_not_logged(certificate, tmp_path):
    command = (sys.executable, "-c", _MANY, *certificate, tmp_path, 1)
    with Keyed(tmp_path, "-d", command=command) as captured:
        captured.finish(number=None)
    for line in captured.lines():
        assert line.split()[2] not in captured.stderr


@pytest.mark.needs("program:node")
def test_a_program_that_carries_its_library(certificate, tmp_path):
    code = """
        const tls = require("tls"), fs = require("fs");
        const [cert, key] = process.argv.slice(1).map((path) => fs.readFileSync(path));
        const server = tls.createServer({cert, key}, (socket) => socket.pipe(socket));
        server.listen(0, "127.0.0.1", () => {
            const socket = tls.connect({port: server.address().port, ca: cert,
                servername: "localhost", checkServerIdentity: () => undefined});
            socket.write("hello");
            socket.once("data", () => { socket.destroy(); server.close(); });
        });
    """
    truth = tmp_path / "node.log"
    command = ("node", f"--tls-keylog={truth}", "-e", code, *certificate)
    with Keyed(tmp_path, command=command) as captured:
        captured.finish(number=None)
    lines = captured.lines()
    assert labels(lines) == TLS_1_3
    assert set(lines) == set(truth.read_text().splitlines())


@pytest.mark.needs("program:tshark", "program:dumpcap")
@VERSIONS
def test_wireshark_decrypts_with_our_keys(certificate, version, tmp_path):
    packets, requests = tmp_path / "packets.pcapng", 20
    with (
        https_server(certificate) as started,
        Keyed(tmp_path, "--pid", started.process.pid) as captured,
        Talker(
            "dumpcap", "-q", "-i", "lo", "-f", f"tcp port {started.port}", "-w", packets
        ) as dump,
    ):
        dump.said.wait_for(lambda line: line.startswith("File:"), "File:")
        for number in range(requests):
            words = ["curl", "-sk", f"--tlsv{version}", "--tls-max", version]
            words.append(f"https://127.0.0.1:{started.port}/?number={number}")
            subprocess.run(words, check=True)
        # dumpcap ends without what is still in its buffer
        wait_until(
            lambda: len(dissected(packets, "tcp.flags.fin == 1", "tcp.stream")) >= 2 * requests,
            "the end of every connection",
        )
        dump.process.send_signal(signal.SIGINT)
        dump.process.wait()
        captured.lines()
    options = ("-o", f"tls.keylog_file:{captured.keys}", "-d", f"tcp.port=={started.port},tls")
    shown = dissected(packets, "http.request", "http.request.uri", *options)
    assert sorted(shown) == sorted(f"/?number={number}" for number in range(requests))


def dissected(packets, wanted, field, *options):
    """A field of all packets that are wanted; of a file that is still written, so far."""
    words = ["tshark", "-r", packets, *options, "-Y", wanted, "-T", "fields", "-e", field]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
