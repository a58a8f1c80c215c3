# SPDX-License-Identifier: Apache-2.0
"""TLS libraries of other releases, in trees of their own: exact plaintext, addresses and keys.

The client is the release's; what it talks to is this host's ``openssl s_server`` unless a test says
otherwise, whose own key log is the truth.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CAPTURES, DEADLINE, Captured, joined, wait_until
from keyed import TLS_1_3, Talker, key_server, labels, read_keys
from servers import Certificate, Server, free_port, listens, make_certificate, running, s_server
from suites import tree

from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.kernel.feature import feature

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl")]
SUITES = ("bullseye", "trixie", "sid")
VERSIONS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}
TUPLES = bool(feature("tp_btf:sock_send_length")) or bool(feature("kprobe"))


_HOLDS = """
import ctypes, ssl
ctypes.CDLL("libgnutls.so.30")
print("holds", flush=True)
input()
"""


@pytest.fixture(scope="module", params=SUITES)
def release(request, tmp_path_factory):
    """A release of Debian, one of whose programs has its libraries loaded: they are hooked early.

    What nobody has loaded is hooked when somebody does, which may be behind the first handshake.
    """
    found = tree(request.param)
    folder = tmp_path_factory.mktemp("holder")
    with Talker(*found.command(folder, "python3", "-c", _HOLDS)) as holder:
        holder.said.wait_for(lambda line: line == "holds\n", "the libraries")
        yield found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def said(run: Captured, pid: int) -> list[tuple[str, bytes]]:
    """What one process wrote and read, in order."""
    return [(e.direction, e.payload) for e in run.shown(pid=pid)]


def ends_of(run: Captured, pid: int, direction: str = "write") -> set[str]:
    """Where the other end of a process's conversations is."""
    name = "destination" if direction == "write" else "source"
    return {getattr(e, name) for e in run.shown(pid=pid, direction=direction)}


def keys_of(ours: Path, theirs: Path) -> list[str]:
    """Our lines of those handshakes that the other end tells of; others may be at it, too."""
    randoms = {line.split()[1] for line in read_keys(theirs)}
    return [line for line in read_keys(ours) if line.split()[1] in randoms]


def assert_keys(ours: Path, theirs: Path, expected: list[str]) -> None:
    """Each line once, and the other end's."""
    found = keys_of(ours, theirs)
    assert labels(found) == expected
    assert set(found) == set(read_keys(theirs))


def assert_clean(run: Captured) -> None:
    assert run.summary["lost"] == run.summary["unreadable"] == run.summary["truncated"] == 0


# --- GnuTLS ---


@contextmanager
def gnutls_serv(release, folder, certificate: Certificate):
    """GnuTLS's server of the release, which says what it hears and keeps a key log."""
    for name, file in (("certificate.pem", certificate.certificate), ("key.pem", certificate.key)):
        (folder / name).write_bytes(file.read_bytes())
    port = free_port()
    words = ["gnutls-serv", "--quiet", "--echo", "--port", port]
    words += ["--x509certfile", "/tmp/certificate.pem", "--x509keyfile", "/tmp/key.pem"]
    environment = os.environ | {"SSLKEYLOGFILE": "/tmp/theirs.log"}
    with running(*release.command(folder, *words), env=environment) as process:
        wait_until(lambda: listens(port), "gnutls-serv listens")
        yield Server(port, (process.pid,), process)


@pytest.mark.parametrize("version", VERSIONS)
def test_gnutls_both_ends(release, version, certificate, tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}"
    with gnutls_serv(release, tmp_path, certificate) as server:
        words = ("gnutls-cli", "--insecure", "--port", server.port, "127.0.0.1")
        with (
            Captured(tmp_path, "-k", ours, probe="gnutls") as run,
            Talker(*release.command(tmp_path, *words, "--priority", priority)) as client,
        ):
            client.said.wait_for(lambda line: "Simple Client Mode" in line, "the connection")
            for text in ("one is said", "two is said"):
                client.tell(text)
                client.said.wait_for(lambda line, text=text: line.strip() == text, "the echo")
            wait_until(lambda: len(keys_of(ours, theirs)) >= len(VERSIONS[version]), "keys")
            run.finish()
    lines = [b"one is said\n", b"two is said\n"]
    there = [(way, line) for line in lines for way in ("write", "read")]
    here = [(way, line) for line in lines for way in ("read", "write")]
    assert said(run, client.process.pid) == there
    assert said(run, server.process.pid) == here
    if TUPLES:
        assert ends_of(run, client.process.pid) == {f"127.0.0.1:{server.port}"}
    assert_keys(ours, theirs, VERSIONS[version])
    assert_clean(run)


def test_gnutls_with_openssl(release, certificate, tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with key_server(certificate, theirs) as (server, _said):
        words = ("gnutls-cli", "--insecure", "--port", server.port, "127.0.0.1")
        with (
            Captured(tmp_path, "-k", ours, probe="gnutls") as run,
            Talker(*release.command(tmp_path, *words)) as client,
        ):
            client.said.wait_for(lambda line: "Simple Client Mode" in line, "the connection")
            client.tell("said")
            client.said.wait_for(lambda line: line.strip() == "dias", "the answer")
            run.finish()
    assert said(run, client.process.pid) == [("write", b"said\n"), ("read", b"dias\n")]
    assert_keys(ours, theirs, TLS_1_3)
    assert_clean(run)


# --- OpenSSL ---


def test_openssl_shares_one_function_for_each_direction(release):
    with ElfFile(next(release.root.glob("usr/lib/*/libssl.so.*"))) as elf:
        library = identify(elf)
    assert {"SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex"} == set(library.through)
    assert len(set(library.through.values())) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_openssl_client(release, version, certificate, tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with key_server(certificate, theirs) as (server, _said):
        words = ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect"]
        words += [f"127.0.0.1:{server.port}", f"-tls{version.replace('.', '_')}"]
        with (
            Captured(tmp_path, "-k", ours) as run,
            Talker(*release.command(tmp_path, *words)) as client,
        ):
            for text in ("one is said", "two is said"):
                client.tell(text)
                client.said.wait_for(
                    lambda line, text=text: line.strip() == text[::-1], "the answer"
                )
            wait_until(lambda: len(keys_of(ours, theirs)) >= len(VERSIONS[version]), "keys")
            run.finish()
    assert said(run, client.process.pid) == [
        ("write", b"one is said\n"),
        ("read", b"dias si eno\n"),
        ("write", b"two is said\n"),
        ("read", b"dias si owt\n"),
    ]
    assert ends_of(run, client.process.pid) == {f"127.0.0.1:{server.port}"}
    assert_keys(ours, theirs, VERSIONS[version])
    assert_clean(run)


def test_openssl_server(release, certificate, tmp_path):
    """The release serves, this host's client asks; both are seen, told apart by their files."""
    ours = tmp_path / "ours.log"
    for name, file in (("certificate.pem", certificate.certificate), ("key.pem", certificate.key)):
        (tmp_path / name).write_bytes(file.read_bytes())
    port = free_port()
    words = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", "/tmp/certificate.pem"]
    words += ["-key", "/tmp/key.pem", "-rev", "-keylogfile", "/tmp/theirs.log"]
    with Talker(*release.command(tmp_path, *words)) as server:
        server.said.wait_for(lambda text: text.startswith("ACCEPT"), "ACCEPT")
        with (
            Captured(tmp_path, "-k", ours, "--pid", server.process.pid) as run,
            Talker("openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}") as client,
        ):
            client.tell("said")
            client.said.wait_for(lambda line: line.strip() == "dias", "the answer")
            wait_until(lambda: len(keys_of(ours, tmp_path / "theirs.log")) >= len(TLS_1_3), "keys")
            run.finish()
    assert said(run, server.process.pid) == [("read", b"said\n"), ("write", b"dias\n")]
    assert run.shown(pid=client.process.pid) == []
    assert_keys(ours, tmp_path / "theirs.log", TLS_1_3)
    assert_clean(run)


def fetched(release, folder, *words: object):
    """The process of a program of the release, and what it printed."""
    with running(*release.command(folder, *words), text=False) as process:
        page = process.communicate(timeout=DEADLINE)[0]
    assert process.returncode == 0
    return process.pid, page


_ASKS = """
import ssl, socket, sys
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as plain:
    with context.wrap_socket(plain) as talk:
        talk.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while got := talk.recv(65536):
            sys.stdout.buffer.write(got)
"""


@pytest.mark.parametrize("program", ["curl", "python3"])
def test_openssl_in_programs(release, program, certificate, tmp_path):
    """A page that s_server makes, byte by byte as the program got it, and the server's keys."""
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with (
        s_server(certificate, "-keylogfile", theirs, "-www") as (server, _said),
        Captured(tmp_path, "-k", ours) as run,
    ):
        words = {
            "curl": ("curl", "-sk", "--http1.1", "-i", f"https://127.0.0.1:{server.port}/"),
            "python3": ("python3", "-c", _ASKS, server.port),
        }
        pid, page = fetched(release, tmp_path, *words[program])
        run.finish()
    asked = joined(run.shown(pid=pid, direction="write"))
    assert asked.startswith(b"GET / HTTP/1.")
    assert asked.endswith(b"\r\n\r\n")
    assert joined(run.shown(pid=pid, direction="read")) == page
    assert len(page) > 1000
    assert ends_of(run, pid) == {f"127.0.0.1:{server.port}"}
    assert_keys(ours, theirs, TLS_1_3)
    assert_clean(run)


def test_a_library_that_nobody_had_loaded(release, certificate, tmp_path):
    """It is hooked when the first process loads it; who comes next is seen from the beginning."""
    own = next(release.root.glob("usr/lib/*/libssl.so.*"))
    shutil.copy(own, tmp_path / own.name)  # another file than the one that is hooked already
    with (
        s_server(certificate, "-www") as (server, _said),
        Captured(tmp_path, "-d") as run,
    ):
        words = ("env", "LD_LIBRARY_PATH=/tmp", "curl", "-sk", "--http1.1", "-i")
        words += (f"https://127.0.0.1:{server.port}/",)
        fetched(release, tmp_path, *words)
        wait_until(
            lambda: any(
                line.rstrip().endswith("pid=None")
                and f"/{own.name} kind=openssl" in line
                and "file=/tmp/" in line
                for line in run.errors.so_far()
            ),
            "the probes",
        )
        pid, page = fetched(release, tmp_path, *words)
        run.finish()
    assert joined(run.shown(pid=pid, direction="read")) == page
    assert joined(run.shown(pid=pid, direction="write")).startswith(b"GET / HTTP/1.1\r\n")
    assert ends_of(run, pid) == {f"127.0.0.1:{server.port}"}
    assert_clean(run)
