# SPDX-License-Identifier: Apache-2.0
"""Keys of libraries other than the distribution's, against the log of the server they talk to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness import CAPTURES
from keyed import TLS_1_3, Keyed, LibraryClient, labels, packages, read_keys, unpacked
from servers import make_certificate, s_server

from ecapture.kernel.feature import feature

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl")]
KEPT = bool(feature("attach_cookie"))
ROUNDS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}
# wheel, the library in it, versions it speaks
LIBRARIES = {
    "openssl-1.0.2q": ("psycopg2/.libs/libssl-*", ("1.2",)),
    "openssl-1.1.1b": ("psycopg2/.libs/libssl-*", ("1.2", "1.3")),
    "openssl-1.1.1l": ("psycopg2_binary.libs/libssl-*", ("1.2", "1.3")),
    "openssl-3.3.1": ("psycopg_binary.libs/libssl-*", ("1.2", "1.3")),
    "openssl-3.4.1": ("pycurl.libs/libssl-*", ("1.2", "1.3")),
    "openssl-3.5.4": ("psycopg2_binary.libs/libssl-*", ("1.2", "1.3")),
    "openssl-3.6.5": ("pycurl.libs/libssl-*", ("1.2", "1.3")),
}
SPOKEN = [(key, version) for key, (_, versions) in LIBRARIES.items() for version in versions]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return tmp_path_factory.mktemp("wheels")


def library_of(key, wheels):
    [found] = unpacked(key, wheels).glob(LIBRARIES[key][0])
    return found


@pytest.mark.parametrize("key, version", SPOKEN)
def test_handshakes_and_resumptions(key, version, certificate, wheels, tmp_path):
    if key == "openssl-1.0.2q" and not KEPT:
        pytest.skip("OpenSSL before 1.1.1 needs attach cookies")
    library, servers = library_of(key, wheels), tmp_path / "server.log"
    options = ("-rev", "-keylogfile", servers, f"-tls1_{version[2]}")
    with (
        s_server(certificate, *options) as (started, _said),
        LibraryClient(library) as client,
        Keyed(tmp_path, "--pid", client.process.pid) as captured,
    ):
        for command in ("connect", "resume"):
            assert client.do(f"{command} {started.port}") == f"TLSv{version}"
            assert client.do("say") == "ok"
            assert client.do("close") == "ok"
        captured.wait_lines(2 * len(ROUNDS[version]))
        lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert labels(lines) == sorted(2 * ROUNDS[version])
    assert captured.summary["unreadable"] == 0


@pytest.mark.skipif(not KEPT, reason="needs attach cookies")
@pytest.mark.parametrize("key, version", SPOKEN)
def test_connections_that_are_older(key, version, certificate, wheels, tmp_path):
    library, servers = library_of(key, wheels), tmp_path / "server.log"
    options = ("-rev", "-keylogfile", servers, f"-tls1_{version[2]}")
    with s_server(certificate, *options) as (started, _said), LibraryClient(library) as client:
        client.do(f"connect {started.port}")
        with Keyed(tmp_path, "--pid", client.process.pid) as captured:
            client.do("say")
            captured.wait_lines(len(ROUNDS[version]))
            lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert captured.summary["unreadable"] == 0


_CURL = """
import ctypes, sys
library, url, version = ctypes.CDLL(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
library.curl_easy_init.restype = ctypes.c_void_p
easy = ctypes.c_void_p(library.curl_easy_init())
URL, VERSION, VERIFY_PEER, VERIFY_HOST = 10002, 32, 64, 81  # include/curl/curl.h
assert library.curl_easy_setopt(easy, URL, url) == 0
for option, value in ((VERSION, version | version << 16), (VERIFY_PEER, 0), (VERIFY_HOST, 0)):
    assert library.curl_easy_setopt(easy, option, ctypes.c_long(value)) == 0
assert library.curl_easy_perform(easy) == 0
"""


@pytest.mark.parametrize("version, number", [("1.2", 6), ("1.3", 7)])
def test_boringssl_in_curl(version, number, certificate, wheels, tmp_path):
    """curl_cffi: libcurl and BoringSSL in one extension module; its functions have local names."""
    servers = tmp_path / "server.log"
    [library] = unpacked("boringssl-curl_cffi", wheels).glob("curl_cffi/_wrapper*.so")
    with s_server(certificate, "-www", "-keylogfile", servers) as (started, _said):
        url = f"https://127.0.0.1:{started.port}/"
        command = (sys.executable, "-c", _CURL, library, url, number)
        lines = after_a_first_run(tmp_path, library, command, servers)
    assert labels(lines) == ROUNDS[version]
    assert set(lines) <= set(read_keys(servers))


_GRPC = """
import sys, grpc
certificate, port = open(sys.argv[1], "rb").read(), sys.argv[2]
channel = grpc.secure_channel("localhost:" + port, grpc.ssl_channel_credentials(certificate))
try:
    channel.unary_unary("/none/none")(b"", timeout=10)
except grpc.RpcError:
    pass
"""


def test_boringssl_without_names(certificate, wheels, tmp_path):
    """grpcio: linked statically and stripped."""
    servers, folder = tmp_path / "server.log", unpacked("boringssl-grpcio", wheels)
    [library] = folder.glob("grpc/_cython/cygrpc*.so")
    environment = {"PYTHONPATH": str(folder), "GRPC_VERBOSITY": "NONE"}
    with s_server(certificate, "-www", "-alpn", "h2", "-keylogfile", servers) as (started, _said):
        command = (sys.executable, "-c", _GRPC, certificate.certificate, started.port)
        lines = after_a_first_run(tmp_path, library, command, servers, **environment)
    assert set(labels(lines)) == set(TLS_1_3)
    assert set(lines) <= set(read_keys(servers))


def after_a_first_run(folder, library, command, truth, **environment):
    """Keys of a command that runs again once the library that it loads late has been hooked."""
    words, env = [str(word) for word in command], os.environ | environment
    with Keyed(folder, "-d", "--pid", os.getpid(), "--follow") as captured:
        subprocess.run(words, env=env, check=True)
        captured.errors.wait_for(lambda line: f"attached keys={library}" in line, "the library")
        before = set(read_keys(truth))
        subprocess.run(words, env=env, check=True)
        lines = captured.lines()
    assert set(read_keys(truth)) - before <= set(lines), "all of the second run"
    return [line for line in lines if line not in before]


@pytest.mark.parametrize("key", ["node-18", "node-20", "node-24"])
def test_programs_that_carry_their_library(key, certificate, tmp_path):
    truth = tmp_path / "node.log"
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
    program = packages.fetch(key)
    program.chmod(0o755)
    with Keyed(
        tmp_path, command=(program, f"--tls-keylog={truth}", "-e", code, *certificate)
    ) as captured:
        captured.finish(number=None)
    lines = captured.lines()
    assert labels(lines) == TLS_1_3
    assert set(lines) == set(truth.read_text().splitlines())
