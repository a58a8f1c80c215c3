# SPDX-License-Identifier: Apache-2.0
"""Keys of programs as people run them: database drivers, HTTP clients, a JavaScript runtime.

Each carries a TLS library of its own and calls it in its own way. The truth is always the key log
of the server at the other end.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CAPTURES
from keyed import PROGRAMS, TLS_1_3, Keyed, Obeying, labels, packages, read_keys, unpacked
from servers import make_certificate, running, s_server

from ecapture.kernel.feature import feature

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl")]
KEPT = bool(feature("attach_cookie"))
ROUNDS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}
# wheel, the libpq in it, versions that its libssl speaks
DRIVERS = {
    "openssl-1.0.2q": ("psycopg2/.libs/libpq-*", ("1.2",)),
    "openssl-1.1.1b": ("psycopg2/.libs/libpq-*", ("1.2", "1.3")),
    "openssl-1.1.1l": ("psycopg2_binary.libs/libpq-*", ("1.2", "1.3")),
    "openssl-3.3.1": ("psycopg_binary.libs/libpq-*", ("1.2", "1.3")),
    "openssl-3.5.4": ("psycopg2_binary.libs/libpq-*", ("1.2", "1.3")),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return tmp_path_factory.mktemp("wheels")


@contextmanager
def postgres(certificate, keys, version):
    """The port of a server that speaks as PostgreSQL does."""
    words = (sys.executable, PROGRAMS / "postgres_stub.py", *certificate, keys, version)
    with running(*words) as process:
        yield int(process.stdout.readline())


@pytest.mark.parametrize(
    "key, version", [(key, one) for key, (_, versions) in DRIVERS.items() for one in versions]
)
def test_postgresql_drivers(key, version, certificate, wheels, tmp_path):
    """psycopg2-binary 2.7.7, 2.8.2, 2.9.3 and 2.9.11, psycopg-binary 3.2.1."""
    if key == "openssl-1.0.2q" and not KEPT:
        pytest.skip("OpenSSL before 1.1.1 needs attach cookies")
    [libpq], servers = unpacked(key, wheels).glob(DRIVERS[key][0]), tmp_path / "server.log"
    with (
        postgres(certificate, servers, version) as port,
        Obeying("libpq_client.py", libpq, LD_LIBRARY_PATH=libpq.parent) as client,
        Keyed(tmp_path, "--pid", client.process.pid) as captured,
    ):
        for _ in range(3):
            assert client.do(f"query {port}") == "42"
        captured.wait_lines(3 * len(ROUNDS[version]))
        lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert labels(lines) == sorted(3 * ROUNDS[version])
    assert captured.summary["lost"] == captured.summary["unreadable"] == 0


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_pyopenssl(version, certificate, wheels, tmp_path):
    """cryptography 50: OpenSSL 4.0.3 inside an extension module, its functions not exported."""
    servers, folder = tmp_path / "server.log", unpacked("openssl-4.0.3-static", wheels)
    options = ("-rev", "-keylogfile", servers, f"-tls1_{version[2]}")
    with (
        s_server(certificate, *options) as (started, _said),
        Obeying("pyopenssl_client.py", PYTHONPATH=folder) as client,
        Keyed(tmp_path, "--pid", client.process.pid) as captured,
    ):
        assert str(folder) in Path(f"/proc/{client.process.pid}/maps").read_text()
        for _ in range(3):
            assert client.do(f"connect {started.port}") == f"TLSv{version}"
            assert client.do("say") == "olleh"
        captured.wait_lines(3 * len(ROUNDS[version]))
        lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert labels(lines) == sorted(3 * ROUNDS[version])


@pytest.mark.skipif(not KEPT, reason="older connections need attach cookies")
@pytest.mark.parametrize(
    "key, version",
    [
        ("openssl-1.1.0g-static", "1.2"),
        ("openssl-1.1.1l-static", "1.2"),
        ("openssl-1.1.1l-static", "1.3"),
        ("openssl-3.2.1-static", "1.2"),
        ("openssl-3.2.1-static", "1.3"),
    ],
)
def test_cryptography(key, version, certificate, tmp_path):
    """cryptography 2.1.4, 3.4.8, 42: handshakes, resumed ones, one older than the capture."""
    servers, library = tmp_path / "server.log", packages.fetch(key)
    options = ("-rev", "-keylogfile", servers, f"-tls1_{version[2]}")
    with (
        s_server(certificate, *options) as (started, _said),
        Obeying("cffi_client.py", library) as client,
    ):
        client.do(f"connect {started.port}")
        with Keyed(tmp_path, "--pid", client.process.pid) as captured:
            assert client.do("say") == "olleh"
            client.do("close")
            for command in ("connect", "resume"):
                assert client.do(f"{command} {started.port}") == f"TLSv{version}"
                assert client.do("say") == "olleh"
                client.do("close")
            captured.wait_lines(3 * len(ROUNDS[version]))
            lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert labels(lines) == sorted(3 * ROUNDS[version])


@pytest.mark.parametrize("version, number", [("1.2", 6), ("1.3", 7)])
def test_curl_of_pycurl(version, number, certificate, wheels, tmp_path):
    """pycurl 7.45.6: libcurl over OpenSSL 3.4.1."""
    [library] = unpacked("openssl-3.4.1", wheels).glob("pycurl.libs/libcurl-*")
    servers = tmp_path / "server.log"
    with (
        s_server(certificate, "-www", "-keylogfile", servers) as (started, _said),
        Obeying("libcurl_client.py", library, LD_LIBRARY_PATH=library.parent) as client,
        Keyed(tmp_path, "--pid", client.process.pid) as captured,
    ):
        for _ in range(3):
            assert client.do(f"get https://127.0.0.1:{started.port}/ {number}") == "200"
        captured.wait_lines(3 * len(ROUNDS[version]))
        lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert labels(lines) == sorted(3 * ROUNDS[version])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_bun(version, certificate, tmp_path):
    """BoringSSL, linked statically and stripped, in a program of a hundred megabytes."""
    servers, program = tmp_path / "server.log", packages.fetch("boringssl-bun")
    program.chmod(0o755)
    options = ("-www", "-keylogfile", servers, f"-tls1_{version[2]}")
    with s_server(certificate, *options) as (started, _said):
        code = f"""
            for (let round = 0; round < 3; round++) {{
                const response = await fetch("https://127.0.0.1:{started.port}/",
                    {{keepalive: false, tls: {{rejectUnauthorized: false}}}});
                if (response.status != 200) process.exit(1);
                await response.text();
            }}
        """
        with Keyed(tmp_path, command=(program, "-e", code)) as captured:
            captured.finish(number=None)
        lines = captured.lines()
    assert set(lines) == set(read_keys(servers))
    assert labels(lines) == sorted(3 * ROUNDS[version])
