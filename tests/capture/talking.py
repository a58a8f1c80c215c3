# SPDX-License-Identifier: Apache-2.0
"""Conversations captured through the library, with messages parsed, and what they must be like."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import servers
from harness import DEADLINE, Watched

from ecapture.config import CaptureConfig, Scope
from ecapture.events import Exchange, Gap, HttpMessage, Plaintext, Said
from ecapture.pipeline.messages import Messages
from ecapture.protocols.messages import Note

T = TypeVar("T")


class Talk:
    """The events of one process, sorted. Nothing in it may be there twice."""

    def __init__(self, events: Sequence[object], *pids: int) -> None:
        own = [event for event in events if getattr(event, "pid", None) in pids]
        self.exchanges = [event for event in own if isinstance(event, Exchange)]
        self.messages = [event for event in own if isinstance(event, HttpMessage)]
        self.unparsed = [event for event in own if isinstance(event, (Plaintext, Gap))]
        self.said = [event for event in own if isinstance(event, Said)]
        twice = [k for k, n in Counter(map(_key, self.exchanges)).items() if n > 1]
        assert not twice
        for exchange in self.exchanges:
            for part in (exchange.request, exchange.response):
                assert part is None or part in self.messages

    def of(self, kind: type[T]) -> list[T]:
        """The messages of a kind that are neither requests nor responses."""
        return [event.message for event in self.said if isinstance(event.message, kind)]

    def pairs(self) -> list[tuple[str, str, int, int]]:
        """(method, target, status, size of the response's content) of each exchange, sorted."""
        return sorted(
            (e.request.head.method, e.request.head.target, e.response.head.status, e.response.size)
            for e in self.exchanges
        )

    def assert_clean(self, role: str, count: int) -> None:
        """So many whole exchanges in that role, and nothing that is marked or not understood."""
        assert not self.unparsed
        # the announced end of a connection is worth a line, but nothing is wrong
        wrong = [m for m in self.of(Note) if not m.detail.startswith("GOAWAY NO_ERROR")]
        assert not wrong, wrong
        assert len(self.exchanges) == count
        assert sum(not message.head.informational for message in self.messages) == 2 * count
        for exchange in self.exchanges:
            assert exchange.role == role
            request, response = exchange.request, exchange.response
            assert request is not None
            assert response is not None
            assert not request.marks + response.marks, (request, response)
            asks, answers = ("write", "read") if role == "client" else ("read", "write")
            assert (request.direction, response.direction) == (asks, answers)
            assert exchange.started_ns <= exchange.first_byte_ns <= exchange.time_ns


def _key(exchange: Exchange) -> tuple[object, ...]:
    return exchange.conversation, exchange.stream, exchange.exchange


def watch_talks(watch: object, scope: Scope, **more: object) -> Watched:
    """A capture through the library with conversations parsed."""
    return watch(CaptureConfig(scope=scope, **more), (Messages(),))


@contextmanager
def client(name: str, certificate: object, port: int, *words: object) -> Iterator[Client]:
    """One of ``programs/clients.py``, ready and waiting for a word."""
    script = servers.PROGRAMS / "clients.py"
    with servers.running(
        sys.executable, script, name, certificate.certificate, port, *words
    ) as process:
        made = Client(process)
        made.wait_ready()
        yield made


class Client:
    """A client that waits for its word; ``result`` is what it saw."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def wait_ready(self) -> None:
        assert self.process.stdout.readline() == "ready\n"

    def step(self) -> None:
        """Says the word and waits until it is ready for the next."""
        self.go()
        self.wait_ready()

    def go(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> object:
        """Says the word, if there is one left to say, and waits for the end."""
        said, _ = self.process.communicate("go\n", timeout=DEADLINE)
        assert self.process.returncode == 0
        return json.loads(said.splitlines()[-1])


def curl(certificate: object, port: int, *words: object) -> subprocess.Popen[bytes]:
    """curl that trusts the certificate; paths within ``words`` begin with a slash.

    After ``--next`` the options that come before the first path are said again.
    """
    said = ["curl"]
    options = ["--silent", "--show-error", "--cacert", str(certificate.certificate)]
    first = next(at for at, word in enumerate(words) if str(word)[:1] == "/")
    options += map(str, words[:first])
    for word in ("--next", *map(str, words[first:])):
        if word == "--next":
            said += [word] * (len(said) > 1) + options
        else:
            said.append(f"https://localhost:{port}{word}" if word[:1] == "/" else word)
    return subprocess.Popen(said, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> bytes:
    """What a program wrote, which must end well."""
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return said
