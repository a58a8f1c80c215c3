# SPDX-License-Identifier: Apache-2.0
"""gRPC between a real client and a real server: calls, their messages and how they ended.

Both ends are grpclib's, over CPython's TLS; ``test_static.py`` has grpcio.
"""

from __future__ import annotations

import sys

import pytest
import servers
from harness import CAPTURES, DEADLINE
from talking import Talk, watch_talks

from ecapture.config import Scope
from ecapture.formats.conversation import ConversationFormat
from ecapture.protocols.grpc import status_of
from ecapture.protocols.messages import Direction, GrpcMessage

pytestmark = CAPTURES
SCRIPT = servers.PROGRAMS / "grpc_peers.py"
COUNT = 40


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """Events of both ends of a run, and what the client said of it."""
    from harness import Watched  # noqa: PLC0415 - a fixture of a module cannot use ``watch``

    certificate = servers.make_certificate(tmp_path_factory.mktemp("certificate"))
    watched = []

    def watch(*words):
        watched.append(Watched(*words))
        return watched[0]

    with servers.running(sys.executable, SCRIPT, "server", *certificate) as server:
        port = server.stdout.readline().strip()
        words = (sys.executable, SCRIPT, "client", certificate.certificate, port, COUNT)
        with servers.running(*words) as client:
            assert client.stdout.readline() == "ready\n"
            with watch_talks(watch, Scope(pids=(server.pid, client.pid))) as run:
                said, _ = client.communicate("go\n", timeout=DEADLINE)
                events = run.finish()
    assert said == "30 NOT_FOUND\n"
    return events, client.pid, server.pid


@pytest.mark.parametrize("role", ["client", "server"])
def test_calls_are_whole_with_method_status_and_messages(called, role):
    events, client, server = called
    talk = Talk(events, client if role == "client" else server)
    talk.assert_clean(role, COUNT + 2)
    by_stream = {e.stream: e for e in talk.exchanges}
    messages = {}
    for message in talk.of(GrpcMessage):
        assert not message.marks
        messages.setdefault((message.stream, message.direction), []).append(message)
    numbers = set()
    for stream, exchange in by_stream.items():
        method = exchange.request.head.target
        asked = messages[stream, Direction.TO_SERVER]
        answered = messages.get((stream, Direction.TO_CLIENT), [])
        assert [m.number for m in asked] == list(range(len(asked)))
        assert [m.number for m in answered] == list(range(len(answered)))
        assert (exchange.request.body, exchange.response.body) == (b"", b"")
        status = status_of(exchange.response.trailers) or status_of(exchange.response.head.fields)
        if method == "/test.Echo/Say":
            (asked,), (answered,) = asked, answered
            assert asked.data == answered.data
            numbers.add(asked.data[1])
            assert status.name == "OK"
        elif method == "/test.Echo/Count":
            assert (len(asked), len(answered)) == (3, 30)
            assert {m.data for m in asked + answered} == {b"\x12\x05again"}
            assert status.name == "OK"
        else:
            assert method == "/test.Echo/Fail"
            assert not answered
            assert status.name == "NOT_FOUND"
    assert numbers == set(range(COUNT))


def test_protocol_buffers_are_shown_by_field(called):
    events, client, _ = called
    own = [event for event in events if event.pid == client]
    shown = b"".join(ConversationFormat().encode(own)).decode()
    assert "grpc=NOT_FOUND" in shown
    assert "again" in shown
    assert shown.count("hello") == 2 * COUNT
