# SPDX-License-Identifier: Apache-2.0
"""``--filter``: which events are shown, by what was parsed from them.

``Filter`` judges one event; ``Filtered`` is the stage. Rules:

1. A comparison on a field that an event does not have is false, ``!=`` too. ``not`` is true of what
   is false: ``status != 200`` asks for a status, ``not status == 200`` does not.
2. A message of an exchange is judged with the other message of that exchange, so a response has the
   method and path of its request. Messages are shown as soon as they are complete, before their
   exchange is; so, where the expression names what only the response can tell (``status``,
   ``duration``, ``size``), the stage holds a request back until its response is complete, and lets
   both go then, the request first. A response that overtook its request is held likewise if the
   expression names what the request tells. Informational responses (1xx) wait with the request;
   they are shown if the final response is, or if they match by themselves.
3. What is held is bounded, by count and by bytes. Beyond that, and at the end of its conversation,
   the oldest is judged by what is known of it.
4. WebSocket messages and server-sent events are judged with the request that opened their stream,
   and gRPC messages with theirs, as far as it is known by then.
5. The end of a conversation and the exit of a process always pass: later stages need them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from ecapture.events import (
    ConversationEnd,
    ConversationKey,
    Event,
    Exchange,
    HttpMessage,
    Interface,
    InterfaceCounts,
    Packets,
    ProcessExit,
    Said,
    Secret,
)
from ecapture.pipeline.expression import All, Any, Comparison, FieldType, Tree, parse
from ecapture.pipeline.filter_fields import FIELDS, Field, Value
from ecapture.pipeline.pattern import Pattern

HELD_MESSAGES: Final = 4096
"""Exchanges that are remembered or held at a time."""
HELD_INFORMATIONAL: Final = 16
"""Informational responses that are held for one request."""
HELD_BYTES: Final = 64 << 20
"""Content that is held at a time."""
_HEAD_COST: Final = 2048  # what a held message costs besides its body, roughly

_CONTAINER_SHORT: Final = 12  # as container engines abbreviate identifiers

_Judge = Callable[[Event, HttpMessage | None, HttpMessage | None], bool]
_Key = tuple[ConversationKey, int, int]


class Filter:
    """One expression. Making it raises UsageError, with a caret where it is malformed.

    ``container_of`` gives the container of a process, "" if it is in none: asked only where the
    expression names ``container`` and the event does not tell. ``mentions`` are the fields named.
    """

    def __init__(
        self,
        expression: str,
        *,
        option: str = "--filter",
        container_of: Callable[[int], str] | None = None,
    ) -> None:
        types = {name: FieldType(field.kind, field.choices) for name, field in FIELDS.items()}
        tree = parse(expression, types, option=option)
        self.expression = expression
        self.mentions = frozenset(_mentioned(tree))
        self._container_of = container_of or (lambda _: "")
        self._judge = self._compiled(tree)

    def matches(self, event: Event) -> bool:
        """Whether the event is to be shown, judged by itself: an exchange has both messages."""
        if type(event) is Exchange:
            return self._judge(event, event.request, event.response)
        if type(event) is HttpMessage:
            return self.judge(event, None, None)
        return self._judge(event, None, None)

    def judge(
        self, event: Event, request: HttpMessage | None, response: HttpMessage | None
    ) -> bool:
        """Whether the event is to be shown, given what is known of the exchange it belongs to."""
        if type(event) is HttpMessage:
            if event.head.kind == "request":
                request = event
            else:
                response = event
        return self._judge(event, request, response)

    def _compiled(self, tree: Tree) -> _Judge:
        if isinstance(tree, Comparison):
            return self._comparison(tree)
        if isinstance(tree, All):
            parts = tuple(map(self._compiled, tree.parts))
            return lambda event, request, response: all(
                part(event, request, response) for part in parts
            )
        if isinstance(tree, Any):
            parts = tuple(map(self._compiled, tree.parts))
            return lambda event, request, response: any(
                part(event, request, response) for part in parts
            )
        part = self._compiled(tree.part)
        return lambda event, request, response: not part(event, request, response)

    def _comparison(self, tree: Comparison) -> _Judge:
        field = FIELDS[tree.field]
        get = self._container if tree.field == "container" else field.get
        holds = _test(tree, field)

        def judge(event: Event, request: HttpMessage | None, response: HttpMessage | None) -> bool:
            value = get(event, request, response)
            return value is not None and holds(value)

        return judge

    def _container(
        self, event: Event, request: HttpMessage | None, response: HttpMessage | None
    ) -> Value:
        pid = getattr(event, "pid", None)
        told = FIELDS["container"].get(event, request, response)
        return told or (self._container_of(pid) if pid is not None else None) or None


class Filtered:
    """The stage: see the head of this module. ``early`` counts what a limit made it judge."""

    def __init__(
        self, judge: Filter, *, held_messages: int = HELD_MESSAGES, held_bytes: int = HELD_BYTES
    ) -> None:
        self.early = 0
        self._filter = judge
        told_by = {FIELDS[name].told_by for name in judge.mentions}
        self._requests_wait = bool(told_by & {"response", "both"})
        self._responses_wait = bool(told_by & {"request", "both"})
        self._paired = told_by != {"event"}
        self._limit = held_messages
        self._byte_limit = held_bytes
        self._bytes = 0
        # Oldest first, both: what is known of open exchanges, and those of which a message is held.
        self._known: dict[_Key, _Known] = {}
        self._held: dict[_Key, None] = {}
        self._of_conversation: dict[ConversationKey, dict[_Key, None]] = {}

    def feed(self, events: list[Event]) -> list[Event]:
        """See Stage."""
        out: list[Event] = []
        for event in events:
            kind = type(event)
            if kind in (ProcessExit, Secret, Interface, Packets, InterfaceCounts):
                out.append(event)  # secrets belong to packets, which this does not choose among
            elif kind is ConversationEnd:
                self._end(event, out)  # type: ignore[arg-type] # type() does not narrow `kind`
                out.append(event)
            elif not self._paired:
                if self._filter.matches(event):
                    out.append(event)
            elif isinstance(event, HttpMessage):
                self._message(event, out)
            elif isinstance(event, Exchange):
                self._exchange(event, out)
            elif isinstance(event, Said):
                message = event.message
                known = self._known.get((event.conversation, message.stream, message.exchange))
                self._emit(event, known, out)
            else:
                self._emit(event, None, out)
        return out

    def flush(self, now_ns: int) -> list[Event]:  # noqa: ARG002 - a response may take for ever
        """See Stage: nothing is due by time."""
        return []

    def close(self) -> list[Event]:
        """See Stage: what is held is judged by what is known of it."""
        out: list[Event] = []
        for key in list(self._known):
            self._release(key, out)
        return out

    def _message(self, event: HttpMessage, out: list[Event]) -> None:
        key = (event.conversation, event.stream, event.exchange)
        known = self._known.get(key)
        if event.head.informational:
            self._informational(known, event, out)
            return
        held = known.held if known is not None else None
        if held is not None and held.head.kind == event.head.kind:
            # A second message of one kind: whoever counts exchanges began anew.
            self._release(key, out)
            known = None
        if known is None:
            known = self._remember(key, out)
        is_request = event.head.kind == "request"
        if is_request:
            known.request = event
        else:
            known.response = event
        if known.request is not None and known.response is not None:
            self._complete(key, known, event, out)
        elif self._requests_wait if is_request else self._responses_wait:
            known.held = event
            self._held[key] = None
            self._bytes += len(event.body) + _HEAD_COST
            self._make_room(out)
        else:
            self._emit(event, known, out)
            known.lighten()

    def _informational(self, known: _Known | None, event: HttpMessage, out: list[Event]) -> None:
        if known is None or known.held is None:
            self._emit(event, known, out)
        elif len(known.announced) == HELD_INFORMATIONAL:
            self.early += 1
            self._emit(event, known, out)
        else:
            known.announced += (event,)
            self._bytes += _HEAD_COST
            self._make_room(out)

    def _complete(self, key: _Key, known: _Known, event: HttpMessage, out: list[Event]) -> None:
        messages = [event] if known.held is None else [known.held, event]
        messages.sort(key=lambda message: message.head.kind == "response")
        for message in messages:
            if message is known.response:
                self._announce(known, out, wanted=self._judge(message, known))
            self._emit(message, known, out)
        self._unhold(key, known)
        if known.opens_more():
            known.lighten()
        else:
            self._forget(key)

    def _announce(self, known: _Known, out: list[Event], *, wanted: bool) -> None:
        judge, request = self._filter.judge, known.request
        out += [one for one in known.announced if wanted or judge(one, request, None)]

    def _exchange(self, event: Exchange, out: list[Event]) -> None:
        key = (event.conversation, event.stream, event.exchange)
        known = self._known.get(key)
        if known is not None:
            known.request = known.request or event.request
            known.response = known.response or event.response
            self._release(key, out, keep=known.opens_more())
        if self._filter.matches(event):
            out.append(event)

    def _end(self, event: ConversationEnd, out: list[Event]) -> None:
        for key in list(self._of_conversation.get(event.conversation, ())):
            self._release(key, out)

    def _emit(self, event: Event, known: _Known | None, out: list[Event]) -> None:
        if self._judge(event, known):
            out.append(event)

    def _judge(self, event: Event, known: _Known | None) -> bool:
        request = known.request if known is not None else None
        response = known.response if known is not None else None
        return self._filter.judge(event, request, response)

    def _remember(self, key: _Key, out: list[Event]) -> _Known:
        while len(self._known) >= self._limit:
            oldest = next(iter(self._known))
            self.early += oldest in self._held
            self._release(oldest, out)
        known = self._known[key] = _Known()
        self._of_conversation.setdefault(key[0], {})[key] = None
        return known

    def _make_room(self, out: list[Event]) -> None:
        while self._bytes > self._byte_limit and self._held:
            self.early += 1
            self._release(next(iter(self._held)), out, keep=True)

    def _release(self, key: _Key, out: list[Event], *, keep: bool = False) -> None:
        known = self._known[key]
        if known.held is not None:
            self._emit(known.held, known, out)
            self._announce(known, out, wanted=False)
            self._unhold(key, known)
        if keep:
            known.lighten()
        else:
            self._forget(key)

    def _unhold(self, key: _Key, known: _Known) -> None:
        if known.held is not None:
            self._bytes -= len(known.held.body) + _HEAD_COST * (1 + len(known.announced))
            known.held, known.announced = None, ()
            del self._held[key]

    def _forget(self, key: _Key) -> None:
        del self._known[key]
        of_conversation = self._of_conversation[key[0]]
        del of_conversation[key]
        if not of_conversation:
            del self._of_conversation[key[0]]


class _Known:
    # What is known of an exchange; ``held`` is the one of both that waits for the other, and
    # ``announced`` are the informational responses that wait with it.
    __slots__ = ("announced", "held", "request", "response")

    def __init__(self) -> None:
        self.request: HttpMessage | None = None
        self.response: HttpMessage | None = None
        self.held: HttpMessage | None = None
        self.announced: tuple[HttpMessage, ...] = ()

    def opens_more(self) -> bool:
        # Messages of another protocol follow on its stream: 101, or CONNECT (RFC 8441 for HTTP/2).
        request, response = self.request, self.response
        switched = response is not None and response.head.status == 101
        return switched or (request is not None and request.head.method == "CONNECT")

    def lighten(self) -> None:
        # Nobody judges by bodies.
        if self.request is not None and self.request.body:
            self.request = msgspec.structs.replace(self.request, body=b"")
        if self.response is not None and self.response.body:
            self.response = msgspec.structs.replace(self.response, body=b"")


def _mentioned(tree: Tree) -> list[str]:
    if isinstance(tree, Comparison):
        return [tree.field]
    parts = tree.parts if isinstance(tree, All | Any) else (tree.part,)
    return [name for part in parts for name in _mentioned(part)]


_COMPARED: Final[Mapping[str, Callable[[object, object], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item] # numbers only, by the parser
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}


def _test(tree: Comparison, field: Field) -> Callable[[Value], bool]:
    wanted = tree.value
    if isinstance(wanted, Pattern):
        search = wanted.search
        return lambda value: any(map(search, _texts(value)))
    if not isinstance(wanted, str):
        compare = _COMPARED[tree.operator]
        return lambda value: compare(value, wanted)
    equal = _equal_to(wanted, tree.field, any_case=field.any_case)
    if tree.operator == "==":
        return lambda value: any(map(equal, _texts(value)))
    return lambda value: not any(map(equal, _texts(value)))


def _equal_to(wanted: str, name: str, *, any_case: bool) -> Callable[[str], bool]:
    if name == "container":
        wanted = wanted.lower()
        if len(wanted) >= _CONTAINER_SHORT:
            return lambda text: text.startswith(wanted)
    elif any_case:
        wanted = wanted.lower()
        return lambda text: text.lower() == wanted
    return wanted.__eq__


def _texts(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)
