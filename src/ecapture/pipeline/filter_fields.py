# SPDX-License-Identifier: Apache-2.0
"""What ``--filter`` may ask of events: every field of the language, and what each event tells.

The fields of SQL statements and of commands of shells are tables in modules of their own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from ecapture.events import (
    Event,
    Exchange,
    Gap,
    HttpMessage,
    Negotiated,
    Plaintext,
    Said,
    Statement,
)
from ecapture.pipeline.command_fields import COMMAND_FIELDS
from ecapture.pipeline.expression import Kind
from ecapture.pipeline.statement_fields import STATEMENT_FIELDS
from ecapture.protocols.messages import (
    Direction,
    GrpcMessage,
    Head,
    Note,
    ServerEvent,
    WebSocketMessage,
)
from ecapture.shell_events import ShellCommand

Value = str | float | tuple[str, ...] | None
Getter = Callable[[Event, HttpMessage | None, HttpMessage | None], Value]


class Field(msgspec.Struct, frozen=True):
    """One field of the language. ``told_by`` says which part of an exchange is needed for it.

    ``any_case``: == and != do not tell capital letters from small ones.
    """

    kind: Kind
    told_by: Literal["event", "request", "response", "both"]
    summary: str
    get: Getter
    any_case: bool = False
    choices: tuple[str, ...] = ()


def _method(_event: Event, request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return (request.head.method or None) if request is not None else None


def _host(_event: Event, request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    # An absolute target outranks the Host field (RFC 9112, 3.2.2).
    if request is None:
        return None
    head = request.head
    authority = head.authority
    if not authority:
        scheme, absolute, rest = head.target.partition("://")
        if absolute and scheme.isalpha():
            authority = rest.partition("/")[0].partition("?")[0]
        elif head.method == "CONNECT":
            authority = head.target
        else:
            authority = head.get("host")
    authority = authority.rpartition("@")[2].strip()
    if authority.startswith("["):
        name = authority[1:].partition("]")[0]
    else:
        name = authority.partition(":")[0]
    return name.lower() or None


def _path(_event: Event, request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return _path_and_query(request.head)[0] if request is not None else None


def _query(_event: Event, request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return _path_and_query(request.head)[1] if request is not None else None


def _path_and_query(head: Head) -> tuple[str | None, str | None]:
    target = head.target
    if not target.startswith(("/", "*")):
        _, absolute, rest = target.partition("://")
        if not absolute:
            return None, None  # the authority form, of CONNECT
        ends = [at for at in (rest.find("/"), rest.find("?")) if at >= 0]
        target = rest[min(ends) :] if ends else "/"
    path, asked, query = target.partition("#")[0].partition("?")
    return path or "/", query if asked else None


def _status(_event: Event, _request: HttpMessage | None, response: HttpMessage | None) -> Value:
    return (response.head.status or None) if response is not None else None


def _size(event: Event, request: HttpMessage | None, response: HttpMessage | None) -> Value:
    if isinstance(event, HttpMessage | Exchange):
        return sum(message.size for message in (request, response) if message is not None)
    if isinstance(event, Plaintext | Gap):
        return event.length
    if isinstance(event, Statement):
        return event.length
    if isinstance(event, ShellCommand):
        return len(event.text.encode("utf-8", "surrogatepass"))
    return event.message.size if isinstance(event, Said) else None


def _duration(event: Event, request: HttpMessage | None, response: HttpMessage | None) -> Value:
    if isinstance(event, Statement | ShellCommand):
        return event.duration_ns
    if request is None or response is None:
        return None
    return max(request.time_ns, response.time_ns) - request.started_ns


def _told(event: Event, name: str) -> Value:
    # not every kind of event has it
    value: Value = getattr(event, name, None)
    return value


def _pid(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return _told(event, "pid")


def _uid(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return _told(event, "uid")


def _comm(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return _told(event, "comm")


def _container(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return str(getattr(event, "container", "")) or None


def _tls(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    negotiated: Negotiated | None = getattr(event, "negotiated", None)
    if negotiated is None:
        return None
    return (negotiated.version, *([negotiated.cipher] if negotiated.cipher else ()))


def _direction(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    return _told(event, "direction")


def _role(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
    if isinstance(event, Exchange):
        return event.role
    if isinstance(event, HttpMessage):
        to_server = event.head.kind == "request"
    elif isinstance(event, Said):
        to_server = event.message.direction is Direction.TO_SERVER
    elif isinstance(event, Statement):
        return "server"
    else:
        return None
    return "client" if to_server == (event.direction == "write") else "server"


def _protocol(event: Event, request: HttpMessage | None, response: HttpMessage | None) -> Value:
    if isinstance(event, Said):
        return _SAID.get(type(event.message))
    if isinstance(event, Statement):
        return ("sql", event.server)
    if isinstance(event, ShellCommand):
        return ("shell",)
    if not isinstance(event, HttpMessage | Exchange):
        return None
    heads = [message.head for message in (request, response) if message is not None]
    names = ["http"]
    names += [f"http/{head.version}" for head in heads if head.version]
    if any(head.get("content-type").lower().startswith("application/grpc") for head in heads):
        names.append("grpc")
    return tuple(names)


_SAID: Final[Mapping[type, tuple[str, ...]]] = {
    WebSocketMessage: ("websocket",),
    ServerEvent: ("sse",),
    GrpcMessage: ("grpc",),
    Note: ("note",),
}


def _of(kind: type, name: str) -> Getter:
    # An empty text is not there to be compared: there is no user rather than one without a name.
    read = operator.attrgetter(name)

    def get(event: Event, _request: HttpMessage | None, _response: HttpMessage | None) -> Value:
        value: Value = read(event) if isinstance(event, kind) else None
        return None if value == "" else value

    return get


FIELDS: Final[Mapping[str, Field]] = {
    "method": Field("text", "request", "the request's method", _method, any_case=True),
    "host": Field(
        "text", "request", "the host that was asked for, without port", _host, any_case=True
    ),
    "path": Field("text", "request", "the path that was asked for, without query", _path),
    "query": Field("text", "request", "what follows the question mark", _query),
    "status": Field("number", "response", "the response's status code", _status),
    "size": Field("size", "both", "bytes of content: request and response together", _size),
    "duration": Field(
        "duration", "both", "from the request's head to the end of the response", _duration
    ),
    "pid": Field("number", "event", "the process", _pid),
    "uid": Field("number", "event", "the user of the process", _uid),
    "comm": Field("text", "event", "the command name of the process", _comm),
    "container": Field(
        "text", "event", "the container of the process; its first 12 digits do", _container
    ),
    "tls": Field(
        "text", "event", "version of TLS and cipher suite: either may match", _tls, any_case=True
    ),
    "direction": Field(
        "text",
        "event",
        "what the process did",
        _direction,
        any_case=True,
        choices=("read", "write"),
    ),
    "role": Field(
        "text", "event", "what the process is", _role, any_case=True, choices=("client", "server")
    ),
    "protocol": Field(
        "text",
        "event",
        "http, http/1.1, http/2, grpc, websocket, sse, sql, shell; an event may be several",
        _protocol,
        any_case=True,
    ),
    **{
        name: Field(
            kind, "event", summary, _of(event, attribute), any_case=any_case, choices=choices
        )
        for event, table in ((Statement, STATEMENT_FIELDS), (ShellCommand, COMMAND_FIELDS))
        for name, kind, summary, attribute, any_case, choices in table
    },
}
"""Every field that an expression may name, in the order in which people are told of them."""
