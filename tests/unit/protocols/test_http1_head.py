# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from ecapture.errors import ProtocolError
from ecapture.protocols.http1_head import (
    Ends,
    frame_request,
    frame_response,
    parse_head,
    parse_trailers,
    refuse_partial,
)
from ecapture.protocols.messages import Mark


def request(*lines, start="POST / HTTP/1.1"):
    raw = "\r\n".join((start, *lines, "", "")).encode("latin-1")
    return parse_head(raw, request=True, max_fields=100)


def response(*lines, start="HTTP/1.1 200 OK"):
    raw = "\r\n".join((start, *lines, "", "")).encode("latin-1")
    return parse_head(raw, request=False, max_fields=100)


def test_order_and_case_are_kept():
    head = request("HoSt: a.example ", "X-b:  1\t", "x-B: 2", "Empty:", "Latin: \xe9")
    assert head[:2] == ("POST", "/")
    assert head.version == "1.1"
    assert head.fields == (
        ("HoSt", "a.example"),
        ("X-b", "1"),
        ("x-B", "2"),
        ("Empty", ""),
        ("Latin", "\xe9"),
    )
    assert head.marks == ()


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("HTTP/1.1 200 OK", (200, "OK", ())),
        ("HTTP/1.0 404 Not Found", (404, "Not Found", ())),
        ("HTTP/1.1 200 ", (200, "", ())),
        ("HTTP/1.1 200", (200, "", ())),
        ("HTTP/1.1  200  OK", (200, "OK", (Mark.MALFORMED,))),
    ],
)
def test_status_lines(start, expected):
    head = response("A: b", start=start)
    assert (head.status, head.reason, head.marks) == expected


def test_request_lines_with_more_spaces_are_read_and_marked():
    head = request("A: b", start="GET  /a b  HTTP/1.1 ")
    assert (head.method, head.target, head.marks) == ("GET", "/a b", (Mark.MALFORMED,))


@pytest.mark.parametrize(
    "start",
    ["", "GET /", "GET / HTTP/2.0", "GET / http/1.1", "G(T / HTTP/1.1", "X" * 40 + " / HTTP/1.1"],
)
def test_other_request_lines_are_refused(start):
    with pytest.raises(ProtocolError):
        request("A: b", start=start)


@pytest.mark.parametrize("start", ["", "HTTP/2 200", "HTTP/1.1 20", "HTTP/1.1 2000", "ICY 200 OK"])
def test_other_status_lines_are_refused(start):
    with pytest.raises(ProtocolError):
        response("A: b", start=start)


def test_a_first_field_that_is_none_is_refused_and_a_later_one_marked():
    with pytest.raises(ProtocolError):
        request("garbage")
    head = request("A: b", "garbage", "C: d")
    assert head.fields == (("A", "b"), ("garbage", ""), ("C", "d"))
    assert head.marks == (Mark.MALFORMED,)


def test_folded_lines_are_joined():
    head = request("A: one", "  two", "\tthree", "Content-Length:", " 5")
    assert head.fields == (("A", "one two three"), ("Content-Length", "5"))
    assert head.marks == ()
    assert frame_request(head)[:2] == (Ends.BY_LENGTH, 5)


def test_bare_line_feeds_are_read_and_marked():
    head = parse_head(b"GET / HTTP/1.1\nA: b\n\n", request=True, max_fields=9)
    assert head.fields == (("A", "b"),)
    assert head.marks == (Mark.MALFORMED,)


@pytest.mark.parametrize("value", ["a\0b", "a\rb"])
def test_control_characters_are_marked(value):
    assert request(f"A: {value}").marks == (Mark.MALFORMED,)


def test_more_fields_than_allowed_are_left_out_but_heeded():
    raw = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20 + b"Content-Length: 3\r\n\r\n"
    head = parse_head(raw, request=True, max_fields=5)
    assert len(head.fields) == 5
    assert head.marks == (Mark.LIMITED,)
    assert "21" in head.problem
    assert frame_request(head).length == 3


@pytest.mark.parametrize(
    ("lines", "ends", "length", "marks"),
    [
        ([], Ends.AT_ONCE, 0, ()),
        (["Content-Length: 0"], Ends.AT_ONCE, 0, ()),
        (["Content-Length: 007"], Ends.BY_LENGTH, 7, ()),
        (["Content-Length: 5", "content-length: 5"], Ends.BY_LENGTH, 5, ()),
        (["Content-Length: 5, 5"], Ends.BY_LENGTH, 5, ()),
        (["Content-Length: 5, 6"], Ends.UNKNOWN, 0, (Mark.AMBIGUOUS,)),
        (["Content-Length: -1"], Ends.UNKNOWN, 0, (Mark.MALFORMED,)),
        (["Content-Length: +1"], Ends.UNKNOWN, 0, (Mark.MALFORMED,)),
        (["Content-Length: 1_0"], Ends.UNKNOWN, 0, (Mark.MALFORMED,)),
        (["Content-Length: \xb2"], Ends.UNKNOWN, 0, (Mark.MALFORMED,)),
        (["Content-Length:"], Ends.UNKNOWN, 0, (Mark.MALFORMED,)),
        (["Content-Length: 9223372036854775808"], Ends.UNKNOWN, 0, (Mark.LIMITED,)),
        (["Content-Length: " + "9" * 9000], Ends.UNKNOWN, 0, (Mark.LIMITED,)),
        (["Content-Length: 9223372036854775807"], Ends.BY_LENGTH, (1 << 63) - 1, ()),
        (["Transfer-Encoding: chunked"], Ends.BY_CHUNKS, 0, ()),
        (["Transfer-Encoding: CHUNKED"], Ends.BY_CHUNKS, 0, ()),
        (["Transfer-Encoding: gzip, chunked"], Ends.BY_CHUNKS, 0, ()),
        (["Transfer-Encoding: chunked, gzip"], Ends.UNKNOWN, 0, (Mark.AMBIGUOUS,)),
        (["Transfer-Encoding: chunked, chunked"], Ends.BY_CHUNKS, 0, (Mark.AMBIGUOUS,)),
        (["Transfer-Encoding: xchunked"], Ends.UNKNOWN, 0, (Mark.AMBIGUOUS,)),
        (["Transfer-Encoding: identity", "Content-Length: 2"], Ends.BY_LENGTH, 2,
         (Mark.AMBIGUOUS,)),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], Ends.BY_CHUNKS, 0, (Mark.AMBIGUOUS,)),
    ],
)  # fmt: skip
def test_where_requests_end(lines, ends, length, marks):
    framing = frame_request(request(*lines))
    assert (framing.ends, framing.length, framing.marks) == (ends, length, marks)
    assert bool(framing.problem) == bool(marks)


def test_a_name_with_a_space_that_frames_is_ambiguous():
    head = request("A: b", "Transfer-Encoding : chunked")
    assert head.marks == (Mark.AMBIGUOUS,)
    assert head.fields[1][0] == "Transfer-Encoding "
    assert frame_request(head).ends == Ends.BY_CHUNKS


@pytest.mark.parametrize(
    ("start", "method", "lines", "ends"),
    [
        ("HTTP/1.1 200 OK", "GET", [], Ends.BY_CLOSE),
        ("HTTP/1.1 200 OK", "GET", ["Content-Length: 3"], Ends.BY_LENGTH),
        ("HTTP/1.1 200 OK", "HEAD", ["Content-Length: 3"], Ends.AT_ONCE),
        ("HTTP/1.1 204 No Content", "GET", ["Content-Length: 3"], Ends.AT_ONCE),
        ("HTTP/1.1 304 Not Modified", "GET", ["Content-Length: 3"], Ends.AT_ONCE),
        ("HTTP/1.1 103 Early Hints", "GET", [], Ends.AT_ONCE),
        ("HTTP/1.1 200 OK", "CONNECT", ["Transfer-Encoding: chunked"], Ends.AT_ONCE),
        ("HTTP/1.1 407 No", "CONNECT", ["Content-Length: 3"], Ends.BY_LENGTH),
        ("HTTP/1.1 200 OK", "", ["Content-Length: 3"], Ends.BY_LENGTH),
        ("HTTP/1.1 200 OK", "GET", ["Transfer-Encoding: gzip"], Ends.BY_CLOSE),
    ],
)
def test_where_responses_end(start, method, lines, ends):
    assert frame_response(response("A: b", *lines, start=start), method).ends == ends


def test_codings_are_those_of_the_transfer_and_then_those_of_the_content():
    framing = frame_request(
        request("Content-Encoding: br, zstd", "Transfer-Encoding: deflate, gzip;q=1, chunked")
    )
    assert framing.codings == ("gzip", "deflate", "zstd", "br")


def test_transfer_encoding_in_http_1_0_is_ambiguous():
    head = request("Transfer-Encoding: chunked", start="POST / HTTP/1.0")
    assert frame_request(head).marks == (Mark.AMBIGUOUS,)


def test_trailers():
    fields, marks = parse_trailers(b"A: b\r\nC: d\r\n\r\n", 10)
    assert fields == (("A", "b"), ("C", "d"))
    assert marks == ()
    with pytest.raises(ProtocolError):
        parse_trailers(b"garbage\r\n\r\n", 10)


@pytest.mark.parametrize(
    ("is_request", "raw"),
    [
        (True, b"GET / HTTP/1.1\r\nHost: a\r\nX: y"),
        (False, b"HTTP/1.1 200 OK\r\nServer: a\r\nX: y"),
    ],
)
def test_no_beginning_of_a_head_is_refused(is_request, raw):
    for size in range(1, len(raw)):
        refuse_partial(raw[:size], request=is_request)


@pytest.mark.parametrize(
    ("is_request", "raw"),
    [
        (True, b'{"a": 1'),
        (True, b"x" * 40),
        (True, b"one two three\r\n"),
        (True, b"GET / HTTP/1.1\r\ngarbage\r\n"),
        (False, b"HTTP/2"),
        (False, b"<html>"),
        (False, b"HTTP/1.1 OK\r\n"),
    ],
)
def test_what_cannot_become_a_head_is_refused_early(is_request, raw):
    with pytest.raises(ProtocolError):
        refuse_partial(raw, request=is_request)


@pytest.mark.parametrize(
    "line", [b"a: b\r\n", b" f\r\n", b"content-length: 1\r\n f\r\n", b"x\r\n", b"\xe9(: \r\n"]
)
def test_a_head_of_many_lines_takes_time_by_their_number_only(line):
    raw = b"GET / HTTP/1.1\r\nA: b\r\n" + line * ((1 << 17) // len(line)) + b"\r\n"
    began = time.process_time()
    parse_head(raw, request=True, max_fields=100)
    assert time.process_time() - began < 20.0


@pytest.mark.parametrize("last", [b"x", b"x HTTP/1.1"])
def test_a_start_line_of_spaces_takes_time_by_its_length_only(last):
    raw = b"GET a" + b" " * (1 << 17) + last + b"\r\n\r\n"
    began = time.process_time()
    try:
        found = parse_head(raw, request=True, max_fields=100).target[::131072]
    except ProtocolError:
        found = ""
    assert found == ("a " if b"HTTP" in last else "")
    assert time.process_time() - began < 10.0


@pytest.mark.parametrize("target", ["/à", "/\u0385/\u0160"])
def test_targets_in_utf8_have_no_spaces(target):
    raw = f"GET {target} HTTP/1.1\r\n\r\n".encode()
    head = parse_head(raw, request=True, max_fields=100)
    assert (head.target.encode("latin-1").decode(), head.marks) == (target, ())
