# SPDX-License-Identifier: Apache-2.0
"""WebSocket between real programs, with permessage-deflate both ways."""

from __future__ import annotations

import pytest
import servers
from harness import CAPTURES
from talking import Talk, client, watch_talks

from ecapture.config import Scope
from ecapture.protocols.messages import Direction, WebSocketMessage

pytestmark = CAPTURES


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


def test_messages_of_both_sides_are_whole_and_inflated(watch, certificate):
    count = 30
    with (
        servers.web_server(certificate) as server,
        client("websockets", certificate, server.port, count) as program,
        watch_talks(watch, Scope(pids=(program.pid, *server.pids))) as run,
    ):
        seen = program.result()
        events = run.finish()
    assert len(seen) == 2 * count + 1
    said = []
    for n in range(count):
        said += [f"text {n} ".encode() * 50, bytes([n % 256]) * 3000]
    said.append(b"one, two, three")
    for role, pid in (("client", program.pid), ("server", *server.pids)):
        talk = Talk(events, pid)
        talk.assert_clean(role, 1)
        assert talk.exchanges[0].response.head.status == 101
        found = talk.of(WebSocketMessage)
        assert not [m for m in found if m.marks]
        for direction in Direction:
            own = [m for m in found if m.direction is direction]
            spoken = [m for m in own if m.kind in {"text", "binary"}]
            assert [m.data for m in spoken] == said
            assert [m.kind for m in spoken[:2]] == ["text", "binary"]
            assert all(m.compressed and m.size < m.decoded_size for m in spoken[:-1])
            assert [m.kind for m in own if m not in spoken] == [
                "ping" if direction is Direction.TO_SERVER else "pong",
                "close",
            ]
        (fragmented,) = [m for m in found if m.fragments > 1]
        assert fragmented.data == said[-1]
        directions = {e.message.direction: e.direction for e in talk.said}
        asks, answers = ("write", "read") if role == "client" else ("read", "write")
        assert directions == {Direction.TO_SERVER: asks, Direction.TO_CLIENT: answers}
