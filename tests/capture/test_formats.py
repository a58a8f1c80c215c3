# SPDX-License-Identifier: Apache-2.0
"""Live traffic as JSON lines and HAR, judged by other readers, and what TLS itself agreed on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import servers
from haralyzer import HarParser
from harness import CAPTURES
from talking import curl, finish

pytestmark = [CAPTURES, pytest.mark.needs("program:curl", "program:nginx")]

SCHEMA = Path(__file__).parents[2] / "docs/reference/jsonl.schema.json"
MODERN = ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256")
OLDER = ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def files(certificate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with servers.nginx(folder, certificate) as server:
        for name, content in {"text": b"plain words\n" * 9, "bytes": bytes(range(256))}.items():
            (folder / "nginx/files" / name).write_bytes(content)
        yield server


def ask(certificate, files):
    """Two connections with different versions of TLS, two requests each; their processes."""
    modern = curl(certificate, files.port, "--tls13-ciphers", MODERN[1], "/text", "/bytes")
    finish(modern)
    suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
    older = curl(certificate, files.port, "--tls-max", "1.2", "--ciphers", suite, "/text", "/none")
    finish(older)
    return modern.pid, older.pid


def test_json_lines_of_live_traffic_are_as_their_schema_says(capture, certificate, files):
    with capture("--comm", "curl", "--comm", "nginx", mode="jsonl") as run:
        modern, older = ask(certificate, files)
        run.finish()
    lines = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    judge = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for line in lines:
        judge.validate(line)
    told = Counter(
        (
            line["pid"] if line["role"] == "client" else "server",
            line["request"]["target"],
            line["response"]["status"],
            line["tls"]["version"],
            line["tls"]["cipher"],
        )
        for line in lines
    )
    assert told == {
        (who, path, status, *agreed): 1
        for pid, path, status, agreed in (
            (modern, "/text", 200, MODERN),
            (modern, "/bytes", 200, MODERN),
            (older, "/text", 200, OLDER),
            (older, "/none", 404, OLDER),
        )
        for who in (pid, "server")
    }


def test_a_har_of_live_traffic_is_read_by_another_reader(capture, certificate, files):
    with capture("--comm", "curl", mode="har") as run:
        modern, older = ask(certificate, files)
        run.finish()
    archive = json.loads(Path(run.path).read_text())
    entries = HarParser(archive).har_data["entries"]
    base = f"https://localhost:{files.port}"
    told = [
        (
            entry["_pid"],
            entry["request"]["url"],
            entry["response"]["status"],
            entry["_tlsVersion"],
            entry["_tlsCipher"],
        )
        for entry in entries
    ]
    assert told == [
        (modern, f"{base}/text", 200, *MODERN),
        (modern, f"{base}/bytes", 200, *MODERN),
        (older, f"{base}/text", 200, *OLDER),
        (older, f"{base}/none", 404, *OLDER),
    ]
    assert entries[0]["response"]["content"]["text"] == "plain words\n" * 9


def test_a_stream_of_events_is_in_an_archive(capture, certificate):
    with servers.web_server(certificate) as web, capture("--comm", "curl", mode="har") as run:
        said = finish(curl(certificate, web.port, "--no-buffer", "/events/30"))
        run.finish()
    (entry,) = HarParser(json.loads(Path(run.path).read_text())).har_data["entries"]
    content = entry["response"]["content"]
    assert said.count(b"event: tick") == 30
    assert content == {"size": len(said), "mimeType": "text/event-stream", "text": said.decode()}


def test_a_filter_selects_by_what_tls_agreed_on(capture, certificate, files):
    with capture("--comm", "curl", "--filter", "tls == TLSv1.2", mode="jsonl") as run:
        _, older = ask(certificate, files)
        run.finish()
    lines = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    assert [(line["pid"], line["request"]["target"]) for line in lines] == [
        (older, "/text"),
        (older, "/none"),
    ]
