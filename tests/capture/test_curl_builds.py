# SPDX-License-Identifier: Apache-2.0
"""curl as it is built with libraries other than OpenSSL: HTTP/1.1 byte by byte, HTTP/2, keys."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
import servers
from harness import CAPTURES, DEADLINE, Captured, joined
from keyed import PROGRAMS, TLS_1_3, labels, read_keys
from talking import Talk, watch_talks

from ecapture.config import Scope

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl", "program:nginx")]
LIBRARIES = Path(f"/usr/lib/{platform.machine()}-linux-gnu")
BUILDS = {"gnutls": "libcurl-gnutls.so.4", "nss": "libcurl-nss.so.4"}
LARGE = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def nginx(certificate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    with servers.nginx(folder, certificate, http2=True) as server:
        (folder / "nginx/files/large").write_bytes(LARGE)
        yield server


@pytest.fixture(params=BUILDS)
def build(request) -> str:
    """The library that curl is built with; no distribution has all."""
    if not (LIBRARIES / BUILDS[request.param]).exists():
        pytest.skip(f"this distribution has no {BUILDS[request.param]}")
    return request.param


def fetching(build: str, url: str):
    """The program that fetches, running."""
    words = (sys.executable, PROGRAMS / "curl_client.py", BUILDS[build], url)
    return servers.running(*words, text=False)


def test_http1(build, certificate, tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    with (
        servers.s_server(certificate, "-keylogfile", theirs, "-www") as (server, _said),
        Captured(tmp_path, "-k", ours, probe=build) as run,
        fetching(build, f"https://localhost:{server.port}/") as process,
    ):
        page = process.communicate(timeout=DEADLINE)[0]
        assert process.returncode == 0
        run.finish()
    sent = joined(run.shown(pid=process.pid, direction="write"))
    got = joined(run.shown(pid=process.pid, direction="read"))
    assert sent.startswith(f"GET / HTTP/1.1\r\nHost: localhost:{server.port}\r\n".encode())
    assert sent.endswith(b"\r\n\r\n")
    assert got.partition(b"\r\n\r\n")[2] == page
    assert len(page) > 1000
    assert labels(read_keys(ours)) == TLS_1_3
    assert set(read_keys(ours)) == set(read_keys(theirs))


def test_http2_with_a_mebibyte(build, watch, nginx):
    with (
        watch_talks(watch, Scope(), probes=(build,)) as run,
        fetching(build, f"https://localhost:{nginx.port}/large") as process,
    ):
        assert process.communicate(timeout=DEADLINE)[0] == LARGE
        assert process.returncode == 0
        events = run.finish()
    asked = Talk(events, process.pid)
    asked.assert_clean("client", 1)
    [exchange] = asked.exchanges
    assert (exchange.request.head.version, exchange.request.head.target) == ("2", "/large")
    assert (exchange.response.head.status, exchange.response.body) == (200, LARGE)
    assert exchange.connection.remote_port == nginx.port
