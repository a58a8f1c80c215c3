# SPDX-License-Identifier: Apache-2.0
"""Events as the stages of the pipeline see them, with everything that a test does not care for."""

from ecapture.events import Connection, Exchange, Gap, HttpMessage, Plaintext, Said
from ecapture.protocols.messages import Direction, Head

CONVERSATION = (7, 0x7F00, 1)
CONNECTION = Connection("ipv4", "10.0.0.1", 40000, "10.0.0.2", 443, "descriptor")
MS = 1_000_000


def request(
    method="GET",
    target="/",
    fields=(),
    body=b"",
    *,
    exchange=0,
    stream=0,
    at=0,
    server=False,
    **more,
):
    head = Head(
        Direction.TO_SERVER,
        at,
        stream,
        exchange,
        kind="request",
        method=method,
        target=target,
        fields=tuple(fields),
        version=more.pop("version", "1.1"),
        authority=more.pop("authority", ""),
    )
    return _message(head, body, "read" if server else "write", at, at, **more)


def response(
    status=200, fields=(), body=b"", *, exchange=0, stream=0, at=10 * MS, server=False, **more
):
    head = Head(
        Direction.TO_CLIENT,
        at,
        stream,
        exchange,
        kind="response",
        status=status,
        fields=tuple(fields),
        version=more.pop("version", "1.1"),
    )
    return _message(head, body, "write" if server else "read", at, at, **more)


def _message(head, body, direction, started, at, **more):
    values = {
        "conversation": CONVERSATION,
        "pid": 7,
        "uid": 1000,
        "comm": "curl",
        "size": len(body),
        "decoded_size": len(body),
    } | more
    return HttpMessage(
        time_ns=at,
        started_ns=started,
        tid=values["pid"],
        direction=direction,
        connection=CONNECTION,
        no_connection="",
        stream=head.stream,
        exchange=head.exchange,
        head=head,
        body=body,
        **values,
    )


def exchange(asked=None, answered=None, **more):
    either = asked or answered
    return Exchange(
        time_ns=max(part.time_ns for part in (asked, answered) if part),
        started_ns=asked.started_ns if asked else 0,
        first_byte_ns=answered.started_ns if answered else 0,
        pid=either.pid,
        tid=either.tid,
        uid=either.uid,
        comm=either.comm,
        role="client",
        conversation=either.conversation,
        connection=either.connection,
        no_connection="",
        stream=either.stream,
        exchange=either.exchange,
        request=asked,
        response=answered,
        **more,
    )


def said(message, direction="read", conversation=CONVERSATION):
    return Said(0, 7, 7, 1000, "curl", direction, conversation, CONNECTION, "", message)


def plaintext(payload=b"", direction="write", **more):
    values = {"pid": 7, "uid": 1000, "comm": "curl", "length": len(payload)} | more
    return Plaintext(
        time_ns=0,
        tid=values["pid"],
        direction=direction,
        conversation=CONVERSATION,
        connection=CONNECTION,
        no_connection="",
        stream_offset=0,
        call_length=len(payload),
        call_offset=0,
        payload=payload,
        **values,
    )


def gap(length=5):
    return Gap(0, 7, "curl", "read", CONVERSATION, CONNECTION, 0, length)
