# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 between real programs: streams told apart, paired, decoded, none twice."""

from __future__ import annotations

import re
import subprocess

import pytest
import servers
from harness import CAPTURES, DEADLINE
from talking import Talk, client, curl, finish, watch_talks

from ecapture.config import Limits, Scope
from ecapture.protocols.messages import Mark, Note

pytestmark = CAPTURES


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def nginx(certificate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    with servers.nginx(folder, certificate, http2=True) as server:
        files = folder / "nginx/files"
        (files / "small").write_bytes(b"small thing\n")
        (files / "large").write_bytes(bytes(range(256)) * 2000)
        yield server


@pytest.mark.needs("program:curl", "program:nginx")
def test_curl_and_nginx(watch, certificate, nginx):
    with watch_talks(watch, Scope(comms=("curl", "nginx"))) as run:
        program = curl(certificate, nginx.port, "--http2", "/small", "/large", "/none", "/small")
        finish(program)
        events = run.finish()
    asked, served = Talk(events, program.pid), Talk(events, *nginx.pids)
    asked.assert_clean("client", 4)
    served.assert_clean("server", 4)
    assert asked.pairs() == served.pairs()
    assert [e.stream for e in asked.exchanges] == [1, 3, 5, 7]
    assert [e.response.head.status for e in asked.exchanges] == [200, 200, 404, 200]
    assert asked.exchanges[1].response.body == bytes(range(256)) * 2000
    head = asked.exchanges[0].request.head
    assert (head.version, head.scheme, head.authority) == ("2", "https", f"localhost:{nginx.port}")
    # what is sent by reference to the table is as readable as at first
    assert asked.exchanges[3].response.head.get("server").startswith("nginx")


@pytest.mark.needs("program:h2load", "program:nginx")
@pytest.mark.parametrize("words", [("-n1000", "-c1", "-m100"), ("-n1000", "-c4", "-m100")], ids=str)
def test_a_hundred_streams_at_once(watch, nginx, words):
    with watch_talks(watch, Scope(comms=("h2load", "nginx")), limits=Limits(ring=64 << 20)) as run:
        program = subprocess.Popen(
            ["h2load", *words, f"https://127.0.0.1:{nginx.port}/small"], stdout=subprocess.PIPE
        )
        said = finish(program).decode()
        events = run.finish()
    assert run.capture.summary.lost == 0
    assert re.search(r"requests: 1000 total, .* 1000 succeeded, 0 failed", said), said
    asked, served = Talk(events, program.pid), Talk(events, *nginx.pids)
    asked.assert_clean("client", 1000)
    served.assert_clean("server", 1000)
    for talk in (asked, served):
        assert {(m, t, s, n) for m, t, s, n in talk.pairs()} == {("GET", "/small", 200, 12)}
        assert {e.response.body for e in talk.exchanges} == {b"small thing\n"}
    per_connection = 1000 // int(words[1][2:])
    for talk in (asked, served):
        streams = {}
        for exchange in talk.exchanges:
            streams.setdefault(exchange.conversation, []).append(exchange.stream)
        assert {len(found) for found in streams.values()} == {per_connection}
        assert all(set(found) == set(range(1, 2 * len(found), 2)) for found in streams.values())


@pytest.mark.needs("program:node")
def test_node_at_both_ends_with_streams_out_of_order(watch, certificate):
    script, count = servers.PROGRAMS / "http2_peers.js", 60
    with servers.running("node", script, "server", *certificate) as server:
        port = server.stdout.readline().strip()
        with servers.running(
            "node", script, "client", certificate.certificate, port, count
        ) as asking:
            assert asking.stdout.readline() == "ready\n"
            with watch_talks(watch, Scope(pids=(server.pid, asking.pid))) as run:
                said, _ = asking.communicate("go\n", timeout=DEADLINE)
                events = run.finish()
    assert said == "done\n"
    for role, pid in (("client", asking.pid), ("server", server.pid)):
        talk = Talk(events, pid)
        talk.assert_clean(role, count)
        numbers = [int(e.request.head.get("x-number")) for e in talk.exchanges]
        assert sorted(numbers) == list(range(count))
        assert numbers != sorted(numbers)
        for number, exchange in zip(numbers, talk.exchanges, strict=True):
            asked = f"question {number} ".encode() * 100
            assert exchange.request.body == asked
            assert exchange.response.body == f"answer {number} ".encode() * 200
            assert exchange.response.head.get("x-heard") == str(len(asked))
            assert exchange.response.trailers == (("x-sum", str(len(asked) + number)),)


@pytest.mark.needs("program:nginx")
def test_httpx(watch, certificate, nginx):
    with (
        client("httpx", certificate, nginx.port, "2", 20, "/small") as program,
        watch_talks(watch, Scope(pids=(program.pid, *nginx.pids))) as run,
    ):
        seen = program.result()
        events = run.finish()
    assert seen == [[200, "small thing\n", "HTTP/2"]] * 20
    asked, served = Talk(events, program.pid), Talk(events, *nginx.pids)
    asked.assert_clean("client", 20)
    served.assert_clean("server", 20)
    assert asked.pairs() == served.pairs()
    assert [e.request.head.target for e in asked.exchanges] == [f"/small?{n}" for n in range(20)]


@pytest.mark.needs("program:nginx")
def test_a_connection_older_than_the_capture(watch, certificate, nginx):
    with client("steps2", certificate, nginx.port, "/small") as program:
        for _ in range(3):
            program.step()
        with watch_talks(watch, Scope(pids=(program.pid, *nginx.pids))) as run:
            for _ in range(5):
                program.step()
            program.result()
            events = run.finish()
    for role, pids in (("client", (program.pid,)), ("server", nginx.pids)):
        talk = Talk(events, *pids)
        assert not talk.unparsed
        notes = [(m.mark, m.detail) for m in talk.of(Note)]
        assert notes.count((Mark.JOINED_LATE, "header table unknown")) == 1
        assert {mark for mark, _ in notes} == {Mark.JOINED_LATE}
        assert len(talk.exchanges) == 6
        assert {e.role for e in talk.exchanges} == {role}
        for n, exchange in enumerate(talk.exchanges, 3):
            head = exchange.request.head
            # What is new since the capture began is readable, what is older may not be.
            assert head.get(f"x-step-{n}") == "a field like no other before"
            assert (head.target, head.method) == (f"/small?{n}", "GET")
            assert exchange.response.head.status == 200
            assert exchange.response.body == b"small thing\n"


@pytest.mark.needs("program:h2load", "program:nginx")
def test_losses_are_marked_and_new_connections_whole(watch, certificate, nginx):
    with watch_talks(
        watch, Scope(comms=("h2load", "curl", "nginx")), limits=Limits(ring=1 << 16)
    ) as run:
        loud = subprocess.Popen(
            ["h2load", "-n400", "-c2", "-m10", f"https://127.0.0.1:{nginx.port}/large"],
            stdout=subprocess.PIPE,
        )
        finish(loud)
        run.wait_for(lambda events: events, "something")
        program = curl(certificate, nginx.port, "--http2", "/small")
        finish(program)
        events = run.finish()
    assert run.capture.summary.lost > 0
    Talk(events, program.pid).assert_clean("client", 1)
    talk = Talk(events, loud.pid, *nginx.pids)
    marked = {m.mark for m in talk.of(Note)}
    marked |= {mark for message in talk.messages for mark in message.marks}
    assert Mark.GAP in marked
    assert Mark.MALFORMED not in marked
    whole = [m for m in talk.messages if m.head.kind == "response" and not m.marks]
    assert {m.body for m in whole} <= {b"small thing\n", bytes(range(256)) * 2000}
