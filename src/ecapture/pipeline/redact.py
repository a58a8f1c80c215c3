# SPDX-License-Identifier: Apache-2.0
"""``--redact``: a stage that replaces credentials, whatever the output.

``credentials`` has what is recognised, and ``docs/reference/redaction.md`` lists it.

1. In parsed heads a credential becomes the word REDACTED. In content, which has its length told
   beside it, it becomes as many asterisks, so that lengths stay true and nothing looks cut.
2. Cookies keep their names and attributes, authentication fields their scheme.
3. Raw ``Plaintext`` is masked as far as it can be recognised within one event: a credential that is
   split over two calls, compressed (HTTP/2 fields, coded content) or binary is not.
4. In statements to databases every literal and parameter becomes a question mark (``sql_mask``).
5. In commands of shells the words that are secrets become REDACTED (``command_mask``).
6. Events without credentials come back as they are, the very objects.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from ecapture.events import Event, Exchange, HttpMessage, Plaintext, Said, Statement
from ecapture.pipeline.command_mask import mask_command
from ecapture.pipeline.credentials import mask_field, mask_text, stars, word
from ecapture.pipeline.sql_mask import MASK, mask_message, mask_sql
from ecapture.protocols.messages import (
    Fields,
    GrpcMessage,
    Head,
    Note,
    ServerEvent,
    WebSocketMessage,
)
from ecapture.shell_events import ShellCommand

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

# Nobody writes passwords there, and they are large.
_NOT_TEXT: Final = ("image/", "audio/", "video/", "font/")
_FORM: Final = "application/x-www-form-urlencoded"


class Redacted:
    """The stage. It holds nothing back."""

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage."""
        # An exchange often comes with its messages, which need to be read only once.
        done: dict[int, HttpMessage] = {}
        return [self._redacted(event, done) for event in events]

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - part of the protocol
        """See Stage."""
        return []

    def close(self) -> list[Event]:
        """See Stage."""
        return []

    def _redacted(self, event: Event, done: dict[int, HttpMessage]) -> Event:
        if isinstance(event, Plaintext):
            return _changed(event, payload=mask_text(event.payload, stars))
        if isinstance(event, HttpMessage):
            return _once(event, done)
        if isinstance(event, Exchange):
            return _changed(
                event,
                request=_once(event.request, done) if event.request is not None else None,
                response=_once(event.response, done) if event.response is not None else None,
                informational=tuple(map(_head, event.informational)),
            )
        if isinstance(event, Said):
            return _changed(event, message=_message(event.message))
        if isinstance(event, Statement):
            return _statement(event)
        if isinstance(event, ShellCommand):
            return _changed(event, text=mask_command(event.text), typed=mask_command(event.typed))
        return event


def _once(message: HttpMessage, done: dict[int, HttpMessage]) -> HttpMessage:
    # By identity, which is safe while the batch is alive.
    known = done.get(id(message))
    if known is None:
        known = done[id(message)] = _http(message)
    return known


def _http(message: HttpMessage) -> HttpMessage:
    kind = message.head.get("content-type").lower().lstrip()
    body = message.body
    if body and not kind.startswith(_NOT_TEXT):
        body = mask_text(body, stars, form=kind.startswith(_FORM))
    return _changed(
        message,
        head=_head(message.head),
        body=body,
        trailers=_fields(message.trailers),
        problem=_text(message.problem),
    )


def _head(head: Head) -> Head:
    authority = head.authority
    if "@" in authority:
        authority = _text(f"://{authority}")[3:]
    return _changed(
        head,
        target=_target(head.target),
        reason=_text(head.reason),
        fields=_fields(head.fields),
        authority=authority,
        problem=_text(head.problem),
    )


def _target(target: str) -> str:
    path, asked, query = target.partition("?")
    return _text(path) + asked + _string(mask_text(_bytes(query), word, form=True))


def _fields(fields: Fields) -> Fields:
    return tuple((name, _field(name, value)) for name, value in fields)


def _field(name: str, value: str) -> str:
    masked = mask_field(_bytes(name), _bytes(value), word)
    return _text(value) if masked is None else _string(masked)


def _message(
    message: WebSocketMessage | ServerEvent | GrpcMessage | Note,
) -> WebSocketMessage | ServerEvent | GrpcMessage | Note:
    if isinstance(message, Note):
        return _changed(message, detail=_text(message.detail))
    if isinstance(message, ServerEvent):
        return _changed(
            message,
            event=_text(message.event),
            data=_string(mask_text(_bytes(message.data), stars)),
            last_id=_text(message.last_id),
        )
    return _changed(message, data=mask_text(message.data, stars), problem=_text(message.problem))


def _statement(event: Statement) -> Statement:
    return _changed(
        event,
        text=mask_sql(event.text, event.server),
        parameters=tuple(None if value is None else MASK for value in event.parameters),
        message=mask_message(event.message),
    )


def _changed(value: _Struct, **fields: Any) -> _Struct:
    # The value itself where nothing is different: that is the usual case.
    for name, new in fields.items():
        old = getattr(value, name)
        if new is not old and new != old:
            return msgspec.structs.replace(value, **fields)
    return value


def _text(text: str) -> str:
    return _string(mask_text(_bytes(text), word)) if text else text


# Both ways without loss for any text, lone surrogates included: what is masked ends at ASCII.


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _string(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
