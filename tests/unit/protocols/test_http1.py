# SPDX-License-Identifier: Apache-2.0
import gzip
import random
import zlib

import h11
import pytest
from http1_talk import CHUNKED, GET, HEAD, LENGTH, OK, TO_CLIENT, TO_SERVER, UNENDED, short, talk
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import four_trials

from ecapture.protocols.http1 import Http1Connection
from ecapture.protocols.messages import (
    Body,
    Head,
    Mark,
    MessageComplete,
    Note,
    Opaque,
    ServerEvent,
    Switched,
    WebSocketMessage,
)

ZIPPED = gzip.compress(b"body body", mtime=0)

REQUESTS = [
    b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nname=value&other=something",
    b"GET /second?x=y HTTP/1.1\r\nHost: a\r\nX-Long: 1\r\n  2\r\n\r\n",
    CHUNKED.replace(b"/a", b"/third")
    + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nChecksum: abc\r\n\r\n",
    b"\r\nGET /old HTTP/1.0\r\n\r\n",
    b"POST /zipped HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    % (len(ZIPPED), ZIPPED),
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\nwith HTTP/1.1 and 200 in content",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (len(ZIPPED), ZIPPED),
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
    b"HTTP/1.1 404\r\nContent-Length: 4\r\n\r\nnone",
]


def test_four_trials_of_requests():
    got = four_trials(
        lambda pieces, _: talk(*((TO_SERVER, piece) for piece in pieces)),
        REQUESTS,
        tail=b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
    )
    assert short(got) == [
        (1, "/first"), (1, b"name=value&other=something"), (1, "end"),
        (2, "/second?x=y"), (2, "end"),
        (3, "/third"), (3, b"hello world"), (3, "end"),
        (4, "/old"), (4, "end"),
        (5, "/zipped"), (5, b"body body"), (5, "end"),
    ]  # fmt: skip
    assert got[3].fields[1] == ("X-Long", "1 2")
    assert got[7].trailers == (("Checksum", "abc"),)
    assert got[7].size == 11
    assert (got[12].size, got[12].decoded_size, got[12].codings) == (len(ZIPPED), 9, ("gzip",))


def test_four_trials_of_responses():
    asked = GET * 5
    got = four_trials(
        lambda pieces, late: talk(
            *([] if late else [(TO_SERVER, asked)]), *((TO_CLIENT, piece) for piece in pieces)
        )[0 if late else 10 :],
        RESPONSES,
        tail=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    )
    assert short(got) == [
        (1, 200), (1, b"with HTTP/1.1 and 200 in content"), (1, "end"),
        (2, 103), (2, 204), (2, "end"),
        (3, 200), (3, b"body body"), (3, "end"),
        (4, 304), (4, "end"),
        (5, 404), (5, b"none"), (5, "end"),
    ]  # fmt: skip


# Pairing


def test_pipelined_requests_are_answered_in_order():
    got = talk((TO_SERVER, GET + HEAD + GET), (TO_CLIENT, OK + OK[:-2] + OK))
    assert short(got)[6:] == [
        (1, 200), (1, b"ok"), (1, "end"), (2, 200), (2, "end"), (3, 200), (3, b"ok"), (3, "end"),
    ]  # fmt: skip
    assert [m.time_ns for m in got] == [0] * 6 + [1] * 8


def test_informational_responses_belong_to_the_same_exchange():
    post = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    got = talk(
        (TO_SERVER, post), (TO_CLIENT, b"HTTP/1.1 100 Continue\r\n\r\n"), (TO_SERVER, b"hi"),
        (TO_CLIENT, OK),
    )  # fmt: skip
    assert short(got) == [
        (1, "/x"), (1, 100), (1, b"hi"), (1, "end"), (1, 200), (1, b"ok"), (1, "end"),
    ]  # fmt: skip
    assert got[1].informational


def test_content_that_is_refused_by_expect_does_not_come():
    post = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 200\r\n\r\n"
    got = talk((TO_SERVER, post), (TO_CLIENT, OK), (TO_SERVER, GET), (TO_CLIENT, OK))
    assert short(got) == [
        (1, "/x"), (1, 200), (1, b"ok"), (1, "end"), (1, "end", Mark.UNFINISHED),
        (2, "/a"), (2, "end"), (2, 200), (2, b"ok"), (2, "end"),
    ]  # fmt: skip


def test_content_that_comes_after_an_early_answer_is_content():
    post = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    got = talk((TO_SERVER, post), (TO_CLIENT, OK), (TO_SERVER, b"hi"), (TO_SERVER, GET))
    assert short(got)[4:] == [(1, b"hi"), (1, "end"), (2, "/a"), (2, "end")]


def test_responses_without_a_request_get_an_exchange_of_their_own():
    got = talk((TO_CLIENT, OK), (TO_SERVER, GET), (TO_CLIENT, OK))
    assert [m.exchange for m in got] == [1, 1, 1, 2, 2, 2, 2, 2]


def test_an_answer_to_head_whose_request_was_not_seen():
    for head in (OK[:-2], b"HTTP/1.1 200 OK\r\nServer: a\r\n\r\n"):
        got = talk((TO_CLIENT, head), (TO_CLIENT, OK))
        assert short(got) == [
            (1, 200), (1, "end", Mark.UNFINISHED), (2, 200), (2, b"ok"), (2, "end"),
        ]  # fmt: skip


def test_lost_responses_are_not_paired_with_later_requests():
    got = talk(
        (TO_SERVER, GET), (TO_CLIENT, b"", 500), (TO_SERVER, GET), (TO_CLIENT, OK)
    )  # fmt: skip
    assert short(got)[-4:] == [(Mark.GAP, 500), (2, 200), (2, b"ok"), (2, "end")]


def test_a_lost_response_that_is_noticed_late_is_not_the_next_one():
    # that bytes are missing shows in the offset of the next ones, behind another request
    got = talk((TO_SERVER, HEAD), (TO_SERVER, GET), (TO_CLIENT, OK, 40))
    assert short(got)[-4:] == [(Mark.GAP, 40), (2, 200), (2, b"ok"), (2, "end")]


def test_more_requests_than_are_remembered_are_answered_in_order():
    got = talk((TO_SERVER, GET * 1030), (TO_CLIENT, OK * 1030))
    answers = [m.exchange for m in got if isinstance(m, Head) and m.status]
    assert answers == list(range(1, 1031))


def test_requests_without_answer_are_bounded():
    connection = Http1Connection()
    for number in range(2000):
        connection.feed(TO_SERVER, GET, number)
    assert len(connection._pairing.waiting) == 1024


# Ends


def test_content_until_close():
    response = b"HTTP/1.0 200 OK\r\n\r\nall of it"
    got = talk((TO_SERVER, GET), (TO_CLIENT, response[:22]), (TO_CLIENT, response[22:]))
    assert short(got)[2:] == [(1, 200), (1, b"all"), (1, b" of it"), (1, "end")]
    got = talk((TO_SERVER, GET), (TO_CLIENT, response), cut=True)
    assert short(got)[2:] == [(1, 200), (1, b"all of it"), (1, "end", Mark.UNFINISHED)]


def test_one_direction_may_end_before_the_other():
    connection = Http1Connection()
    connection.feed(TO_SERVER, GET, 0)
    connection.feed(TO_CLIENT, b"HTTP/1.0 200 OK\r\n\r\nall", 1)
    assert connection.end(2, TO_SERVER) == []
    assert short(connection.end(3, TO_CLIENT)) == [(1, "end")]
    assert connection.end(4) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /a HT", [(Mark.UNFINISHED, 9)]),
        (b"no http at all", [(Mark.UNFINISHED, 14)]),
        (b"not\nhttp at all", [(Mark.JOINED_LATE, 15)]),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nX-Ha", [(1, "/a", Mark.UNFINISHED), UNENDED]),
        (LENGTH + b"half", [(1, "/a"), (1, b"half"), UNENDED]),
        (CHUNKED + b"9\r\nhalf", [(1, "/a"), (1, b"half"), UNENDED]),
        (CHUNKED + b"0\r\nA: b", [(1, "/a"), UNENDED]),
    ],
)
def test_what_is_unfinished_at_the_end_is_given_out(data, expected):
    assert short(talk((TO_SERVER, data))) == expected


# Other protocols on the same connection


def test_connect_opens_a_tunnel():
    connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = talk(
        (TO_SERVER, connect), (TO_CLIENT, answer + b"hello"), (TO_SERVER, GET, 3), (TO_CLIENT, OK)
    )  # fmt: skip
    assert short(got)[2:4] == [(1, 200), (1, "end")]
    assert got[4:] == [
        Switched(TO_CLIENT, 1, 0, 1, "tunnel"),
        Opaque(TO_CLIENT, 1, 0, 1, b"hello"),
        Opaque(TO_SERVER, 2, 0, 1, GET, 3),
        Opaque(TO_CLIENT, 3, 0, 1, OK),
    ]


def test_a_refused_connect_stays_http():
    connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno"
    got = talk((TO_SERVER, connect), (TO_CLIENT, answer), (TO_SERVER, GET), (TO_CLIENT, OK))
    assert short(got)[2:] == [
        (1, 407), (1, b"no"), (1, "end"), (2, "/a"), (2, "end"), (2, 200), (2, b"ok"), (2, "end"),
    ]  # fmt: skip


def test_an_upgrade_to_websocket_is_followed():
    asked = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n"
    )
    packer = zlib.compressobj(wbits=-15)
    packed = (packer.compress(b"hello") + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    frame = bytes((0xC1, len(packed))) + packed
    connection = Http1Connection()
    got = connection.feed(TO_SERVER, asked, 0) + connection.feed(TO_CLIENT, answer + frame, 1)
    assert connection.switched == "websocket"
    got += connection.feed(TO_SERVER, b"\x89\x80abcd", 2) + connection.end(3)
    assert short(got)[:4] == [(1, "/ws"), (1, "end"), (1, 101), (1, "end")]
    assert got[4] == Switched(TO_CLIENT, 1, 0, 1, "websocket")
    assert isinstance(got[5], WebSocketMessage)
    assert (got[5].data, got[5].exchange, got[5].compressed) == (b"hello", 1, True)
    assert got[6].kind == "ping"
    assert len(got) == 7


def test_an_upgrade_to_h2c_hands_the_rest_on():
    asked = b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    got = talk((TO_SERVER, asked), (TO_CLIENT, answer + b"\0\0\0\4"), (TO_SERVER, b"PRI * HTTP"))
    assert got[4:] == [
        Switched(TO_CLIENT, 1, 0, 1, "h2c"),
        Opaque(TO_CLIENT, 1, 0, 1, b"\0\0\0\4"),
        Opaque(TO_SERVER, 2, 0, 1, b"PRI * HTTP"),
    ]


def test_what_extensions_were_agreed_on_may_stand_on_several_lines():
    asked = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Extensions: other\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    # the example of RFC 7692, 7.2.3.1
    got = talk((TO_SERVER, asked), (TO_CLIENT, answer + b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"))
    assert (got[-1].data, got[-1].marks) == (b"Hello", ())


ASKING = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
EARLY = b"\x81\x85\0\0\0\0he\n\no\x82\x81\0\0\0\0!"


@pytest.mark.parametrize("step", [1, 7, 100])
def test_what_is_sent_before_the_answer_to_an_upgrade_is_of_the_new_protocol(step):
    early = [(TO_SERVER, piece) for piece in cut(EARLY, step)]
    got = talk((TO_SERVER, ASKING), *early, (TO_CLIENT, SWITCHING))
    assert [m.data for m in got if isinstance(m, WebSocketMessage)] == [b"he\n\no", b"!"]
    assert not [m for m in got if isinstance(m, Note)]


@pytest.mark.parametrize("step", [1, 100])
def test_what_is_sent_before_the_answer_to_connect_is_in_the_tunnel(step):
    connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"
    early = [(TO_SERVER, piece) for piece in cut(b"\r\n\x16\x03", step)]
    got = talk((TO_SERVER, connect), *early, (TO_CLIENT, b"HTTP/1.1 200 OK\r\n\r\n"))
    assert got[-1] == Opaque(TO_SERVER, len(early) + 1, 0, 1, b"\r\n\x16\x03")


def test_what_is_sent_before_a_refusal_is_read_as_http():
    got = talk((TO_SERVER, ASKING), (TO_SERVER, b"\r\n" + GET[:9]), (TO_CLIENT, OK),
               (TO_SERVER, GET[9:]), (TO_CLIENT, OK))  # fmt: skip
    assert short(got)[2:] == [
        (1, 200), (1, b"ok"), (1, "end"), (2, "/a"), (2, "end"), (2, 200), (2, b"ok"), (2, "end"),
    ]  # fmt: skip
    got = talk((TO_SERVER, ASKING), (TO_SERVER, EARLY), (TO_CLIENT, OK), (TO_SERVER, GET))
    assert short(got)[-3:] == [(Mark.MALFORMED, len(EARLY)), (2, "/a"), (2, "end")]
    got = talk((TO_SERVER, ASKING), (TO_SERVER, EARLY))
    assert short(got)[-1] == (Mark.UNFINISHED, len(EARLY))


def test_too_much_before_an_answer_and_gaps_in_it_are_counted():
    early = b"\x16" * 3000
    got = talk((TO_SERVER, ASKING), (TO_SERVER, early), (TO_CLIENT, SWITCHING), max_head=2000)
    assert [(m.mark, m.size) for m in got if isinstance(m, Note)] == [(Mark.LIMITED, 3000)]
    got = talk(
        (TO_SERVER, ASKING), (TO_SERVER, early), (TO_SERVER, early, 9), (TO_CLIENT, SWITCHING)
    )
    assert [(m.mark, m.size) for m in got if isinstance(m, Note)] == [(Mark.GAP, 6009)]


def test_an_upgrade_that_is_ignored_stays_http():
    asked = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    assert short(talk((TO_SERVER, asked), (TO_CLIENT, OK)))[2:] == [
        (1, 200),
        (1, b"ok"),
        (1, "end"),
    ]


def test_server_sent_events_come_out_as_they_are_complete():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    connection = Http1Connection(body_limit=12)
    connection.feed(TO_SERVER, GET, 0)
    connection.feed(TO_CLIENT, chunked, 1)
    got = connection.feed(TO_CLIENT, b"d\r\ndata: one\n\nda\r\n", 2)
    assert [type(m) for m in got] == [Body, ServerEvent]
    assert (got[1].data, got[1].time_ns, got[1].exchange) == ("one", 2, 1)
    got = connection.feed(TO_CLIENT, b"9\r\nta: two\n\n\r\n0\r\n\r\n", 3)
    assert [type(m) for m in got] == [ServerEvent, MessageComplete]
    assert got[0].data == "two", "beyond the limit of content there are events all the same"
    assert (got[1].size, got[1].kept, got[1].truncated) == (22, 12, True)


# Against an independent implementation


TOKENS = st.text("abcXYZ-09", min_size=1, max_size=8).filter(lambda t: t[0] != "-")
FIELDS = st.lists(
    st.tuples(TOKENS.map(lambda t: "X-" + t), st.text("abc ,;=", max_size=12).map(str.strip)),
    max_size=4,
)
CONTENT = st.lists(st.binary(min_size=1, max_size=40), max_size=4)
CYCLES = st.lists(
    st.tuples(
        st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
        FIELDS,
        CONTENT,
        st.booleans(),
        st.sampled_from([200, 204, 304, 404, 500]),
        FIELDS,
        CONTENT,
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def framed(content, chunked):
    size = sum(map(len, content))
    return [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", str(size))]


def send(connection, *events):
    return b"".join(connection.send(event) for event in events)


def cut(data, step):
    return [data[i : i + step] for i in range(0, len(data), step)]


def write(cycles):
    """Have h11 write both sides of ``cycles``; return their bytes and what is to be seen there."""
    client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    said, answered, asked, told = b"", b"", [], []
    for method, extra, content, chunked, status, more, answer, answer_chunked, hints in cycles:
        fields = [("Host", "a"), *extra, *framed(content, chunked)]
        trailers = [("X-After", "1")] if chunked else []
        wire = send(
            client,
            h11.Request(method=method, target="/x", headers=fields),
            *(h11.Data(data=data) for data in content),
            h11.EndOfMessage(headers=trailers),
        )
        said += wire
        listen(server, wire)
        asked.append((method, len(fields), b"".join(content), len(trailers)))
        wire = b""
        if hints:
            early = h11.InformationalResponse(status_code=103, headers=[("Link", "</y>")])
            wire += send(server, early)
            told.append((103, 1, None, None))
        none = method == "HEAD" or status in {204, 304}
        sent = [] if none else answer
        final = send(
            server,
            h11.Response(
                status_code=status,
                headers=[*more, *([] if none else framed(sent, answer_chunked))],
                reason="Reason",
            ),
            *(h11.Data(data=data) for data in sent),
            h11.EndOfMessage(),
        )
        lines = final.split(b"\r\n\r\n")[0].count(b"\r\n")
        told.append((status, lines, b"".join(sent), 0))
        answered += wire + final
        listen(client, wire + final)
        client.start_next_cycle()
        server.start_next_cycle()
    return said, answered, asked, told


def listen(connection, wire):
    connection.receive_data(wire)
    while type(connection.next_event()) is not h11.EndOfMessage:
        pass


@settings(deadline=None)
@given(CYCLES, st.sampled_from((1, 3, 50, 10_000)))
def test_reads_what_h11_writes(cycles, step):
    said, answered, asked, told = write(cycles)
    got = talk(
        *((TO_SERVER, piece) for piece in cut(said, step)),
        *((TO_CLIENT, piece) for piece in cut(answered, step)),
    )
    for direction, expected in ((TO_SERVER, asked), (TO_CLIENT, told)):
        seen, body = [], b""
        for m in (m for m in got if m.direction is direction):
            assert not getattr(m, "marks", ())
            if isinstance(m, Head):
                seen.append([m.method or m.status, len(m.fields), None, None])
                body = b""
            elif isinstance(m, Body):
                body += m.data
            else:
                seen[-1][2:] = [body, len(m.trailers)]
        assert [tuple(entry) for entry in seen] == expected


def judge(stream):
    """What h11 makes of a stream of requests, up to its first complaint."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(stream)
    whole, head, body = [], None, b""
    try:
        while True:
            event = connection.next_event()
            match event:
                case h11.Request():
                    names = [bytes(name) for name, _ in event.headers.raw_items()]
                    head, body = (event.method, event.target, names), b""
                    if event.method == b"CONNECT" or event.http_version[:1] != b"1":
                        return whole
                case h11.Data():
                    body += bytes(event.data)
                case h11.EndOfMessage():
                    whole.append((*head, body))
                    connection.send(h11.Response(status_code=204, headers=[]))
                    connection.send(h11.EndOfMessage())
                    connection.start_next_cycle()
                case _:
                    return whole
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return whole


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, len(REQUESTS) - 2), min_size=1, max_size=4),
    st.integers(0, 4),
    st.integers(0, 1 << 30),
    st.sampled_from((1, 7, 10_000)),
)
def test_reads_whatever_h11_accepts(order, changes, seed, step):
    stream = bytearray(b"".join(REQUESTS[index] for index in order))
    chance = random.Random(seed)
    for _ in range(changes):
        at = chance.randrange(len(stream))
        match chance.randrange(3):
            case 0:
                stream[at] = chance.randrange(256)
            case 1:
                stream[at:at] = chance.choice([b"\r\n", b"\n", b" ", b"0", b":", b"x", b"\r\n "])
            case _:
                del stream[at]
    # A first request line may be taken for the end of content, so one goes before.
    stream = GET + stream
    expected = judge(bytes(stream))
    seen = []
    body = b""
    for m in talk(*((TO_SERVER, piece) for piece in cut(bytes(stream), step))):
        match m:
            case Head():
                names = [name.encode("latin-1") for name, _ in m.fields]
                seen.append([m.method.encode(), m.target.encode("latin-1"), names, None])
                body = b""
            case Body():
                body += m.data
            case MessageComplete() if Mark.UNFINISHED not in m.marks:
                seen[-1][3] = body
    assert [tuple(entry) for entry in seen[: len(expected)]] == expected
