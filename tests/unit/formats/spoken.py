# SPDX-License-Identifier: Apache-2.0
"""Events as the pipeline makes them, to be varied by tests: a small GET and its answer."""

from __future__ import annotations

from typing import Any

from ecapture.events import Connection, Exchange, Gap, HttpMessage, Plaintext, Said
from ecapture.protocols.messages import Direction, Head

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT
START = 1_767_323_045_000_000_000  # 2026-01-02T03:04:05Z
CONNECTION = Connection("ipv4", "10.0.0.1", 40000, "10.0.0.2", 443, "descriptor")
WHO: dict[str, Any] = {
    "pid": 7,
    "tid": 8,
    "uid": 1000,
    "comm": "curl",
    "conversation": (7, 0xABC0, 1),
    "connection": CONNECTION,
    "no_connection": "",
}
REQUEST_FIELDS = (
    ("Host", "example.com"),
    ("User-Agent", "curl/8.5.0"),
    ("Accept", "*/*"),
)
RESPONSE_FIELDS = (
    ("Server", "nginx/1.25.3"),
    ("Date", "Fri, 02 Jan 2026 03:04:05 GMT"),
    ("Content-Type", "application/json"),
    ("Content-Length", "12"),
    ("X-Odd-CASE", "kept"),
)


def request_head(**changes: Any) -> Head:
    told: dict[str, Any] = {
        "kind": "request",
        "method": "GET",
        "target": "/path?q=1",
        "version": "1.1",
        "fields": REQUEST_FIELDS,
        "size": 80,
    }
    return Head(TO_SERVER, START, **(told | changes))


def response_head(**changes: Any) -> Head:
    told: dict[str, Any] = {
        "kind": "response",
        "status": 200,
        "reason": "OK",
        "version": "1.1",
        "fields": RESPONSE_FIELDS,
        "size": 150,
    }
    return Head(TO_CLIENT, START + 2_000_000, **(told | changes))


def http(kind: str, head: Head | None = None, **changes: Any) -> HttpMessage:
    """A message of a client; ``decoded_size`` follows ``body`` unless it is told."""
    request = kind == "request"
    told: dict[str, Any] = {
        "time_ns": START + (1_000_000 if request else 5_000_000),
        "started_ns": START if request else START + 2_000_000,
        "direction": "write" if request else "read",
        "stream": 0,
        "exchange": 0,
        "head": head or (request_head() if request else response_head()),
        **WHO,
        **changes,
    }
    told.setdefault("decoded_size", len(told.get("body", b"")))
    return HttpMessage(**told)


def answer(body: bytes, content_type: str, **changes: Any) -> HttpMessage:
    head = response_head(fields=(("Content-Type", content_type),))
    return http("response", **({"head": head, "body": body, "size": len(body)} | changes))


def exchange(**changes: Any) -> Exchange:
    told: dict[str, Any] = {
        "time_ns": START + 5_000_000,
        "started_ns": START,
        "first_byte_ns": START + 2_000_000,
        "role": "client",
        "stream": 0,
        "exchange": 0,
        "request": http("request"),
        "response": http("response", body=b'{"a": "\xc3\xa9"}', size=11),
        **WHO,
    }
    return Exchange(**(told | changes))


def said(message: Any, **changes: Any) -> Said:
    told: dict[str, Any] = {"time_ns": START, "direction": "read", "message": message, **WHO}
    return Said(**(told | changes))


def plaintext(payload: bytes, **changes: Any) -> Plaintext:
    told: dict[str, Any] = {
        "time_ns": START,
        "direction": "read",
        "stream_offset": 0,
        "call_length": len(payload),
        "call_offset": 0,
        "length": len(payload),
        "payload": payload,
        **WHO,
    }
    return Plaintext(**(told | changes))


def gap() -> Gap:
    return Gap(START, 7, "curl", "read", (7, 0xABC0, 1), CONNECTION, 10, 99)
