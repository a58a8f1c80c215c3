# SPDX-License-Identifier: Apache-2.0
"""tlspeer as a process, and what a capture of it must look like.

Both ends of a pair are one process, so a stream is known by its direction and its ends: the
client's writes and the server's reads name the same source and destination, but not the same
direction.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from harness import DEADLINE, Lines, Shown, joined

from ecapture.events import Plaintext

_SPEC = importlib.util.spec_from_file_location(
    "programs_build", Path(__file__).parent / "programs" / "build.py"
)
programs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(programs)


def installed_libssl() -> Path:
    """The file of the distribution's libssl, links resolved."""
    ctypes.CDLL("libssl.so.3")
    return mapped_libssl("self").resolve()


def mapped_libssl(pid: object) -> Path:
    """The libssl that a process has mapped, under the name it knows it by."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return Path(re.search(r"\S*/libssl\.so\S*", maps)[0])


ENDS = ("client", "c", "s"), ("server", "s", "c")  # side, what it writes, what it reads


class Peer:
    """A running tlspeer. Its token is new every time: no test takes another's bytes for its own."""

    def __init__(
        self,
        program: Path | str,
        *words: object,
        sizes: Sequence[int] = (1, 100, 16384, 100000),
        count: int = 1,
        token: str = "",
        prefix: Sequence[object] = (),
        env: dict[str, str] | None = None,
        **how: object,
    ) -> None:
        self.token = token or f"tok-{uuid.uuid4().hex[:12]}"
        self.sizes, self.count = list(sizes), count
        said = ["--token", self.token, "--sizes", ",".join(map(str, sizes)), "--count", str(count)]
        self.process = subprocess.Popen(
            [str(word) for word in (*prefix, program, *words, *said)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
            **how,
        )
        self.pid = self.process.pid
        self._lines = Lines(self.process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()

    def wait_for(self, kind: str, **wanted: object) -> dict:
        """The first report of a kind, now or later."""

        def fits(line: str) -> bool:
            report = json.loads(line)
            return report["event"] == kind and wanted.items() <= report.items()

        return json.loads(self._lines.wait_for(fits, kind))

    @property
    def port(self) -> int:
        """Where a server listens."""
        return json.loads(self._lines.wait_for(lambda line: '"port"' in line, "port"))["port"]

    def go(self) -> None:
        """Says the word that --wait-go and --wait-connected wait for."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self, status: int = 0) -> Peer:
        """Waits for the end, which must be a good one."""
        assert self.process.wait(DEADLINE) == status, self._lines.so_far()[-3:]
        self.reports = [json.loads(line) for line in self._lines.all()]
        return self

    def run(self) -> Peer:
        """Waits until it is ready, says the word and waits for the end."""
        self.wait_for("ready")
        self.go()
        return self.end()

    def interrupt(self) -> None:
        """Kills it in the middle of whatever it does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def reported(self) -> int:
        """How many reports there are by now."""
        return len(self._lines.so_far())

    def of(self, kind: str, **wanted: object) -> list[dict]:
        """Reports of a kind whose values are as wanted; after ``end``."""
        return [r for r in self.reports if r["event"] == kind and wanted.items() <= r.items()]

    def says(self, label: str) -> bytes:
        """Everything one direction says: c, s or e (early)."""
        return programs.stream(self.token, label, self.sizes, self.count)


def endpoint(address: Sequence[object]) -> str:
    """An address as the text output writes it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def stream_of(
    shown: Sequence[Shown], done: dict, direction: str, *, addressed: bool = True
) -> list[Shown]:
    """The events of one direction of the conversation that a ``done`` report tells of."""
    local, remote = "?", "?"
    if addressed:
        local, remote = endpoint(done["local"]), endpoint(done["remote"])
    source, destination = (local, remote) if direction == "write" else (remote, local)
    return [
        event
        for event in shown
        if (event.pid, event.direction, event.source, event.destination)
        == (done["pid"], direction, source, destination)
    ]


def assert_calls(stream: Sequence[Shown], tally: dict) -> None:
    """The pieces make up exactly the calls that were counted, whole, by the right threads."""
    assert len([event for event in stream if event.call_offset == 0]) == tally["calls"]
    assert {event.tid for event in stream} == set(tally["tids"])
    at = 0
    for event in stream:
        assert event.call_offset == at
        assert event.length == len(event.payload)
        assert not event.missing
        assert not event.assumed
        at = 0 if at + event.length == event.call_length else at + event.length
    assert at == 0


def assert_exact(
    shown: Sequence[Shown], peer: Peer, *, layer: str = "only", connections: int = 1
) -> None:
    """Every direction of every conversation: the bytes, once, in order, its ends and threads."""
    for side, writes, reads in ENDS:
        ends = peer.of("done", side=side, layer=layer)
        assert len(ends) == connections
        for done in ends:
            assert done["verified"]
            for direction, label in (("write", writes), ("read", reads)):
                stream = stream_of(shown, done, direction)
                assert joined(stream) == peer.says(label), (side, direction)
                assert_calls(stream, done[direction])


def assert_nothing_else(shown: Sequence[Shown], peer: Peer, connections: int = 1) -> None:
    """No event of the peer beyond its four streams: their sizes add up to all that was shown."""
    own = sum(len(event.payload) for event in shown if event.pid == peer.pid)
    assert own == 2 * connections * (len(peer.says("c")) + len(peer.says("s")))


def conversations_of(events: Sequence[object], done: dict) -> list[list[Plaintext]]:
    """Events of the library, those of one TLS object, by conversation in order of appearance."""
    found: dict[tuple[int, int, int], list[Plaintext]] = {}
    for event in events:
        if isinstance(event, Plaintext) and event.conversation[:2] == (
            done["pid"],
            int(done["ssl"], 16),
        ):
            found.setdefault(event.conversation, []).append(event)
    return list(found.values())


def assert_conversation(conversation: Sequence[Plaintext], done: dict, peer: Peer) -> None:
    """Both directions of one conversation, byte for byte and with offsets that leave no gap."""
    writes, reads = {side: labels for side, *labels in ENDS}[done["side"]]
    for direction, label in (("write", writes), ("read", reads)):
        pieces = [event for event in conversation if event.direction == direction]
        assert joined(pieces) == peer.says(label)
        at = 0
        for piece in pieces:
            assert piece.stream_offset == at
            at += piece.length
        assert {piece.tid for piece in pieces} == set(done[direction]["tids"])


def ends_of(conversation: Sequence[Plaintext]) -> set[tuple[object, object] | None]:
    """All connections that the events of a conversation name, as tlspeer writes them."""
    return {
        event.connection
        and (
            (event.connection.local, event.connection.local_port),
            (event.connection.remote, event.connection.remote_port),
        )
        for event in conversation
    }
