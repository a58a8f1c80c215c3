# SPDX-License-Identifier: Apache-2.0
"""One line each."""

from spoken import (
    START,
    TO_CLIENT,
    exchange,
    gap,
    http,
    plaintext,
    request_head,
    response_head,
    said,
)

from ecapture.events import Event
from ecapture.formats.brief import BriefFormat
from ecapture.protocols.messages import GrpcMessage, Mark, Note, ServerEvent, WebSocketMessage

END = "2026-01-02T03:04:05.005000000Z pid=7 comm=curl"
THEN = "2026-01-02T03:04:05.000000000Z pid=7 comm=curl"


def shown(*events: Event, colour: bool = False) -> str:
    return b"".join(BriefFormat(colour=colour).encode(list(events))).decode()


def test_exchange() -> None:
    line = f"{END} client GET example.com/path?q=1 200 request=0 response=11 5.000ms\n"
    assert shown(exchange()) == line
    assert shown(exchange().request) == ""


def test_a_tunnel_has_the_name_of_its_end_once() -> None:
    request = http("request", request_head(method="CONNECT", target="there:80"))
    assert " client CONNECT there:80 200 " in shown(exchange(request=request))


def test_parts_that_are_missing() -> None:
    late = exchange(request=None, started_ns=0, role="server")
    assert shown(late) == f"{END} server - - 200 request=- response=11 -\n"
    unfinished = http("request", size=9, marks=(Mark.UNFINISHED,), problem="ended")
    line = "client GET example.com/path?q=1 - request=9 response=- 5.000ms [unfinished: ended]\n"
    assert shown(exchange(request=unfinished, response=None)) == f"{END} {line}"


def test_grpc_and_marks_of_both() -> None:
    request = http("request", request_head(authority="h", marks=(Mark.GAP,)))
    response = http("response", trailers=(("grpc-status", "5"),), marks=(Mark.GAP, Mark.LIMITED))
    line = "GET h/path?q=1 200 request=0 response=0 5.000ms grpc=NOT_FOUND [gap, limited]\n"
    assert shown(exchange(request=request, response=response)).endswith(line)


def test_every_word_is_one() -> None:
    request = http("request", request_head(target="/a b\n\x1b", method=""))
    line = shown(exchange(request=request))
    assert r" - example.com/a\x20b\x0a\x1b 200" in line
    assert line.count("\n") == 1


def test_what_is_said() -> None:
    text = "x" * 61
    events = [
        said(WebSocketMessage(TO_CLIENT, START, 3, kind="text", data=b"a\nb", size=3)),
        said(WebSocketMessage(TO_CLIENT, START, kind="close", size=2, close_code=1000)),
        said(ServerEvent(TO_CLIENT, START, data=text, size=70)),
        said(GrpcMessage(TO_CLIENT, START, 5, number=2, size=4, marks=(Mark.GAP,))),
        said(Note(TO_CLIENT, START, 7, mark=Mark.JOINED_LATE, detail="why")),
        plaintext(b"abc", missing="truncated"),
        plaintext(b"abc"),
        gap(),
    ]
    assert shown(*events).splitlines() == [
        rf'{THEN} read websocket text stream=3 length=3 "a\x0ab"',
        f"{THEN} read websocket close length=2 code=1000",
        f'{THEN} read event message length=70 "{text[:60]}..."',
        f"{THEN} read grpc message=2 stream=5 length=4 [gap]",
        f"{THEN} read note stream=7 [joined late: why]",
        f"{THEN} read plaintext length=3 [truncated]",
        f"{THEN} read plaintext length=3",
        f"{THEN} read lost=99 [gap]",
    ]


def test_colours() -> None:
    text = shown(exchange(response=http("response", response_head(status=503))), gap(), colour=True)
    assert f"\x1b[2m{END}\x1b[0m client" in text
    assert " \x1b[1;31m503\x1b[0m " in text
    assert "\x1b[33m [gap]\x1b[0m\n" in text
