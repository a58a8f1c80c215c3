# SPDX-License-Identifier: Apache-2.0
"""Messages of PostgreSQL's protocol, made by hand, and a session that they are said to."""

from __future__ import annotations

from collections.abc import Sequence

from ecapture.events import Served, SessionFacts, Statement
from ecapture.pipeline.postgres_session import Session


def message(kind: str, body: bytes = b"") -> bytes:
    """One message: type, length, content."""
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def startup(**parameters: str) -> bytes:
    """A start-up packet of version 3.0."""
    body = (196608).to_bytes(4, "big")
    for name, value in parameters.items():
        body += f"{name}\0{value}\0".encode()
    body += b"\0"
    return (len(body) + 4).to_bytes(4, "big") + body


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def parse(name: str, text: str, types: Sequence[int] = ()) -> bytes:
    numbers = b"".join(number.to_bytes(4, "big") for number in types)
    return message("P", f"{name}\0{text}\0".encode() + len(types).to_bytes(2, "big") + numbers)


def bind(
    portal: str, statement: str, values: Sequence[bytes | None] = (), formats: Sequence[int] = ()
) -> bytes:
    body = f"{portal}\0{statement}\0".encode() + len(formats).to_bytes(2, "big")
    body += b"".join(code.to_bytes(2, "big") for code in formats)
    body += len(values).to_bytes(2, "big")
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value
    return message("B", body + b"\0\0")


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message("E", portal.encode() + b"\0" + rows.to_bytes(4, "big"))


def describe(which: str, name: str = "") -> bytes:
    return message("D", f"{which}{name}\0".encode())


SYNC = message("S")
PARSED, BOUND, READY = message("1"), message("2"), message("Z", b"I")


def complete(tag: str) -> bytes:
    return message("C", tag.encode() + b"\0")


def failure(code: str, text: str, severity: str = "ERROR") -> bytes:
    return message("E", f"S{severity}\0V{severity}\0C{code}\0M{text}\0\0".encode())


class Said:
    """A session that is told what a client and its server say; a second passes at each."""

    def __init__(
        self, *, facts: SessionFacts | None = None, started: bool = True, limit: int = 1000
    ) -> None:
        self.now = 0
        self.kept = {"read": 0, "write": 0}
        self.told: list[Statement] = []
        self.session = Session(self._run("read", b""), facts, limit)
        if started and facts is None:
            self.client(startup(user="alice", database="shop", application_name="app"))
            self.server(READY)
            self.told.clear()

    def _run(self, direction: str, payload: bytes, **changes: object) -> Served:
        self.now += 1_000_000_000
        fields: dict[str, object] = {
            "time_ns": self.now,
            "pid": 7,
            "tid": 7,
            "uid": 107,
            "comm": "postgres",
            "direction": direction,
            "session_ns": 5,
            "client": "127.0.0.1:5000",
            "no_client": "",
            "kept_offset": self.kept[direction],
            "length": len(payload),
            "payload": payload,
            "boundary": True,
        }
        self.kept[direction] += len(payload)
        return Served(**fields | changes)  # type: ignore[arg-type]

    def client(self, *messages: bytes, **changes: object) -> None:
        self.session.feed(self._run("read", b"".join(messages), **changes), self.told)

    def server(self, *messages: bytes, **changes: object) -> None:
        self.session.feed(self._run("write", b"".join(messages), **changes), self.told)

    def lose(self, direction: str, count: int = 10) -> None:
        """So many bytes were kept and not delivered."""
        self.kept[direction] += count

    def all(self) -> list[Statement]:
        """What was told since the last time."""
        told, self.told[:] = list(self.told), []
        return told

    def one(self) -> Statement:
        """The only one that was."""
        (told,) = self.all()
        return told
