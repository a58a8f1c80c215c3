# SPDX-License-Identifier: Apache-2.0
import pytest
from exchanges import CONVERSATION, MS, exchange, gap, plaintext, request, response, said

from ecapture.events import ConversationEnd
from ecapture.pipeline.filter import Filter
from ecapture.pipeline.filter_fields import FIELDS
from ecapture.protocols.messages import Direction, GrpcMessage, Note, ServerEvent, WebSocketMessage

ASKED = request("POST", "/api/v1/users?page=2", [("Host", "Example.com:8443")], b"x" * 100)
ANSWERED = response(503, [("Content-Type", "text/plain")], b"y" * 50, at=300 * MS)
BOTH = exchange(ASKED, ANSWERED)
END = ConversationEnd(0, 7, "curl", CONVERSATION, "freed")
WORDS = said(WebSocketMessage(Direction.TO_CLIENT, 0, size=9))


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("method == POST", True),
        ("method == post", True),
        ("method ~ post", False),
        ("method ~ ^P", True),
        ("method != GET", True),
        ("host == example.com", True),
        ("host == EXAMPLE.COM", True),
        ("host ~ 8443", False),
        ("path == /api/v1/users", True),
        ("path ~ users$", True),
        ("query == page=2", True),
        ("status == 503", True),
        ("status >= 500 and status < 600", True),
        ("status < 500", False),
        ("size == 150", True),
        ("size > 10k", False),
        ("duration > 250ms", True),
        ("duration > 300ms", False),
        ("duration >= 300ms", True),
        ("pid == 7", True),
        ("pid != 7", False),
        ("uid == 1000", True),
        ("uid == 0", False),
        ("comm == curl", True),
        ("comm == Curl", False),
        ("role == client", True),
        ("direction == read", False),
        ("protocol == http", True),
        ("protocol == HTTP/1.1", True),
        ("protocol == http/2", False),
        ("protocol != websocket", True),
        ("protocol ~ ^http/", True),
        ("container ~ .", False),
        ("not container ~ .", True),
        ("method == GET or status == 503", True),
        ("method == POST && !(status == 503)", False),
    ],
)
def test_an_exchange_has_every_field(expression, expected):
    assert Filter(expression).matches(BOTH) is expected


@pytest.mark.parametrize(
    "event, expression, expected",
    [
        (ASKED, "method == POST and size == 100", True),
        (ASKED, "status != 200", False),
        (ASKED, "not status == 200", True),
        (ASKED, "duration >= 0s", False),
        (ASKED, "direction == write and role == client", True),
        (ANSWERED, "method == POST", False),
        (ANSWERED, "status == 503 and size == 50", True),
        (ANSWERED, "direction == read and role == client", True),
        (request(server=True), "direction == read and role == server", True),
        (response(server=True), "direction == write and role == server", True),
        (plaintext(b"abc"), "pid == 7 and uid == 1000 and size == 3 and direction == write", True),
        (plaintext(b"abc"), "method != GET", False),
        (plaintext(b"abc"), "protocol != http", False),
        (gap(5), "comm == curl and size == 5 and direction == read", True),
        (gap(5), "uid != 0", False),
        (END, "comm == curl", True),
        (END, "direction == read", False),
        (exchange(None, ANSWERED), "status == 503", True),
        (exchange(None, ANSWERED), "method != GET", False),
        (exchange(ASKED), "duration >= 0s", False),
        (request(fields=[("content-type", "application/grpc+proto")], version="2"),
         "protocol == grpc and protocol == http/2", True),
        (WORDS, "protocol == websocket", True),
        (WORDS, "size == 9 and role == client", True),
        (said(ServerEvent(Direction.TO_CLIENT, 0)), "protocol == sse", True),
        (said(GrpcMessage(Direction.TO_SERVER, 0), "write"), "protocol == grpc", True),
        (said(GrpcMessage(Direction.TO_SERVER, 0), "write"), "role == client", True),
        (said(Note(Direction.TO_CLIENT, 0)), "protocol == note", True),
    ],
)  # fmt: skip
def test_what_an_event_has_not_is_never_true(event, expression, expected):
    assert Filter(expression).matches(event) is expected


@pytest.mark.parametrize(
    "target, authority, host, expected",
    [
        ("/x", "", "a.example", "a.example"),
        ("/x", "b.example:443", "a.example", "b.example"),
        ("http://c.example:80/x", "", "a.example", "c.example"),
        ("http://c.example?x", "", "", "c.example"),
        ("/x", "", "[2001:db8::1]:443", "2001:db8::1"),
        ("/x", "user:pass@d.example", "", "d.example"),
        ("/x?u=http://e.example/", "", "a.example", "a.example"),
        ("/x", "", "", None),
    ],
)
def test_host(target, authority, host, expected):
    fields = [("host", host)] if host else []
    asked = request(target=target, authority=authority, fields=fields)
    assert FIELDS["host"].get(asked, asked, None) == expected


def test_host_of_connect():
    asked = request("CONNECT", "f.example:443")
    assert FIELDS["host"].get(asked, asked, None) == "f.example"
    assert FIELDS["path"].get(asked, asked, None) is None


@pytest.mark.parametrize(
    "target, path, query",
    [
        ("/a/b?c=d?e", "/a/b", "c=d?e"),
        ("/a", "/a", None),
        ("/a?", "/a", ""),
        ("/a#f?g", "/a", None),
        ("*", "*", None),
        ("http://h/a?b", "/a", "b"),
        ("http://h", "/", None),
        ("http://h?q", "/", "q"),
        ("", None, None),
    ],
)
def test_path_and_query(target, path, query):
    asked = request(target=target)
    assert FIELDS["path"].get(asked, asked, None) == path
    assert FIELDS["query"].get(asked, asked, None) == query
