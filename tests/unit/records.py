# SPDX-License-Identifier: Apache-2.0
"""Records and events with everything filled in that a test does not care about."""

from __future__ import annotations

from ecapture._wire import (
    END,
    EXIT,
    PLAINTEXT,
    PLAINTEXT_FIELDS,
    TUPLE_VALUE,
    Family,
    Flag,
    Kind,
    TupleSource,
)
from ecapture.events import ConversationEnd, Plaintext, ProcessExit
from ecapture.kernel.recording import Frame, Metadata, frame, opening

CONVERSATION = (100, 0x7000, 5)

# No addresses, nor will there be any: what might still get some is held back for a moment.
NO_SOCKET = TUPLE_VALUE.pack(b"", b"", 0, 0, Family.NONE, TupleSource.NOT_INET, 0, 0)

_RECORD = {
    "time_ns": 1_000,
    "kind": Kind.PLAINTEXT,
    "flags": Flag.LAST,
    "pid": 100,
    "tid": 101,
    "uid": 1000,
    "cpu": 3,
    "comm": b"curl",
    "handle": 0x7000,
    "generation": 5,
    "stream_offset": 0,
    "call_offset": 0,
    "tuple": NO_SOCKET,
    "fd": -1,
    "direction": 1,
    "hook": 2,
}


def padded(record: bytes) -> bytes:
    """The record as it stands in a batch."""
    return record + bytes(-len(record) % 8)


def plaintext_record(payload: bytes = b"hello", **fields: object) -> bytes:
    """One record of a call, padded; the fields are those of struct ec_plaintext."""
    values = _RECORD | {"size": PLAINTEXT.size + len(payload), "call_length": len(payload)} | fields
    return padded(PLAINTEXT.pack(*(values[name] for name in PLAINTEXT_FIELDS)) + payload)


def end_record(time_ns: int = 2_000, generation: int = 5) -> bytes:
    """The end of the conversation of ``plaintext_record``."""
    return END.pack(time_ns, END.size, Kind.END, 0, 100, 101, 1000, 3, b"curl", 0x7000, generation)


def exit_record(time_ns: int = 3_000) -> bytes:
    """The exit of the process of ``plaintext_record``."""
    return EXIT.pack(time_ns, EXIT.size, Kind.EXIT, 0, 100, 101, 1000, 3, b"curl")


def plaintext(payload: bytes = b"hello", **fields: object) -> Plaintext:
    """One event."""
    values: dict[str, object] = {
        "time_ns": 1_000,
        "pid": 100,
        "tid": 101,
        "uid": 1000,
        "comm": "curl",
        "direction": "write",
        "conversation": CONVERSATION,
        "connection": None,
        "no_connection": "a test",
        "stream_offset": 0,
        "call_length": len(payload),
        "call_offset": 0,
        "length": len(payload),
        "payload": payload,
    }
    return Plaintext(**(values | fields))


def ended(**fields: object) -> ConversationEnd:
    """The end of the conversation of ``plaintext``."""
    values: dict[str, object] = {
        "time_ns": 2_000,
        "pid": 100,
        "comm": "curl",
        "conversation": CONVERSATION,
        "reason": "freed",
    }
    return ConversationEnd(**(values | fields))


def exited(pid: int = 100, time_ns: int = 3_000) -> ProcessExit:
    """The exit of a process."""
    return ProcessExit(time_ns, pid, "curl")


def recording(*batches: bytes, **metadata: object) -> bytes:
    """A whole recording."""
    start = opening(Metadata(**({"wall_offset_ns": 0} | metadata)))
    return start + b"".join(frame(Frame.RECORDS, batch) for batch in batches)
