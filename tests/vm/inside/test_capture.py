# SPDX-License-Identifier: Apache-2.0
"""The product on this kernel: real programs, exact bytes, addresses, a filter, a recording."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "capture"))

import servers
from harness import CAPTURES, DEADLINE, Captured, joined, run_ecapture

pytestmark = CAPTURES
WITHOUT_TYPES = "btf" in os.environ.get("ECAPTURE_GUEST_WITHOUT", "")
SIZE = 300_000  # of a body: many calls, and calls of many pieces


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def server(certificate):
    with servers.https_server(certificate) as started:
        yield started


def post(certificate, server, body):
    """Sends a body by curl; returns its process id once the answer was the same."""
    address = f"localhost:{server.port}"
    words = ["curl", "--silent", "--http1.1", "--cacert", str(certificate.certificate)]
    words += ["--resolve", f"{address}:127.0.0.1", "--data-binary", "@-", f"https://{address}/"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        answer, _ = client.communicate(body, timeout=DEADLINE)
    assert answer == body
    return client.pid


def test_both_ends_are_shown_exactly_with_their_addresses(tmp_path, certificate, server):
    body = (f"{uuid.uuid4().hex} " * (SIZE // 33)).encode()
    with Captured(tmp_path) as run:
        client = post(certificate, server, body)
        run.finish()
    (accepted,) = server.pids
    sent = joined(run.shown(pid=client, direction="write"))
    assert sent.endswith(b"\r\n\r\n" + body)
    assert joined(run.shown(pid=accepted, direction="read")) == sent
    answered = joined(run.shown(pid=accepted, direction="write"))
    assert answered.endswith(b"\r\n\r\n" + body)
    assert joined(run.shown(pid=client, direction="read")) == answered
    ends = {event.destination for event in run.shown(pid=client, direction="write")}
    assert ends == ({"?"} if WITHOUT_TYPES else {f"127.0.0.1:{server.port}"})
    assert run.summary["lost"] == run.summary["unreadable"] == run.summary["malformed"] == 0


def test_others_than_the_wanted_process_are_not_shown(tmp_path, certificate, server):
    (accepted,) = server.pids
    with Captured(tmp_path, "--pid", accepted) as run:
        post(certificate, server, b"only the server is watched")
        run.finish()
    assert {event.pid for event in run.shown()} == {accepted}


def test_a_recording_replays_what_was_shown(tmp_path, certificate, server):
    with Captured(tmp_path, mode="record") as run:
        client = post(certificate, server, b"recorded on this kernel")
        run.finish()
    done = run_ecapture("replay", "--brief", "--filter", f"pid == {client}", run.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1
    assert b" POST localhost:" in done.stdout
    assert b" 200 " in done.stdout


def test_the_doctor_finds_that_capturing_is_possible():
    done = run_ecapture("doctor", "--json")
    assert done.returncode == 0, done.stderr
