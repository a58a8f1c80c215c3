# SPDX-License-Identifier: Apache-2.0
"""Archives: golden entries, and a file that is valid after every batch."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import (
    START,
    answer,
    exchange,
    gap,
    http,
    plaintext,
    request_head,
    response_head,
)

from ecapture.events import Event, Exchange
from ecapture.formats.har import HarFormat
from ecapture.protocols.messages import Mark


class File:
    """A file that what is written to may be taken back from its end."""

    def __init__(self, form: HarFormat) -> None:
        self.form = form
        self.held = bytearray(form.opening())

    def write(self, *events: Event) -> None:
        back, pieces = self.form.encode(list(events))
        written = b"".join(pieces)
        assert len(written) >= back
        self.held[len(self.held) - back :] = written

    def entries(self) -> list[Any]:
        return json.loads(self.held)["log"]["entries"]


def entry_of(event: Exchange, **options: Any) -> Any:
    file = File(HarFormat(**options))
    file.write(event)
    (entry,) = file.entries()
    return entry


def test_a_file_without_exchanges() -> None:
    file = File(HarFormat(version="0.1"))
    golden = b'{"log":{"version":"1.2","creator":{"name":"ecapture","version":"0.1"},"pages":[],'
    assert bytes(file.held) == golden + b'"entries":[\n]}}\n'
    file.write(gap(), plaintext(b"x"), http("request"))
    file.write()
    assert bytes(file.held) == golden + b'"entries":[\n]}}\n'
    assert file.form.closing() == b""


def test_a_file_is_valid_after_every_batch() -> None:
    file = File(HarFormat())
    for number in range(1, 4):
        file.write(exchange(pid=number), gap(), exchange(pid=-number))
        assert len(file.entries()) == 2 * number
    assert [entry["_pid"] for entry in file.entries()] == [1, -1, 2, -2, 3, -3]
    assert file.held.endswith(b"}\n]}}\n")
    assert file.held.count(b"\n") == 8


def test_the_next_file_begins_anew() -> None:
    form = HarFormat()
    for _ in range(2):
        file = File(form)
        file.write(exchange())
        assert len(file.entries()) == 1


def test_a_pipe_is_never_written_back() -> None:
    form = HarFormat(seekable=False)
    written = form.opening()
    for _ in range(3):
        back, pieces = form.encode([exchange()])
        assert back == 0
        written += b"".join(pieces)
    written += form.closing()
    assert len(json.loads(written)["log"]["entries"]) == 3


def test_exchange() -> None:
    head = request_head(fields=(("Host", "example.com"), ("Cookie", "a=1; b=2")))
    assert entry_of(exchange(request=http("request", head))) == {
        "startedDateTime": "2026-01-02T03:04:05.000000Z",
        "time": 5.0,
        "request": {
            "method": "GET",
            "url": "https://example.com/path?q=1",
            "httpVersion": "HTTP/1.1",
            "cookies": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
            "headers": [
                {"name": "Host", "value": "example.com"},
                {"name": "Cookie", "value": "a=1; b=2"},
            ],
            "queryString": [{"name": "q", "value": "1"}],
            "headersSize": 80,
            "bodySize": 0,
        },
        "response": {
            "status": 200,
            "statusText": "OK",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": [
                {"name": "Server", "value": "nginx/1.25.3"},
                {"name": "Date", "value": "Fri, 02 Jan 2026 03:04:05 GMT"},
                {"name": "Content-Type", "value": "application/json"},
                {"name": "Content-Length", "value": "12"},
                {"name": "X-Odd-CASE", "value": "kept"},
            ],
            "content": {"size": 11, "mimeType": "application/json", "text": '{"a": "é"}'},
            "redirectURL": "",
            "headersSize": 150,
            "bodySize": 11,
        },
        "cache": {},
        "timings": {
            "send": 1.0,
            "wait": 1.0,
            "receive": 3.0,
            "blocked": -1,
            "dns": -1,
            "connect": -1,
            "ssl": -1,
        },
        "connection": "7-abc0-1",
        "_pid": 7,
        "_tid": 8,
        "_uid": 1000,
        "_comm": "curl",
        "_container": "",
        "_role": "client",
        "_direction": "outgoing",
        "_stream": 0,
        "_marks": [],
        "_problem": "",
        "serverIPAddress": "10.0.0.2",
        "_local": "10.0.0.1:40000",
        "_remote": "10.0.0.2:443",
    }


def test_a_server_s_view() -> None:
    entry = entry_of(exchange(role="server"), container_of=lambda pid: f"c{pid}")
    assert (entry["_role"], entry["_direction"]) == ("server", "incoming")
    assert entry["serverIPAddress"] == "10.0.0.1"
    assert entry["_container"] == "c7"


def test_http2() -> None:
    head = request_head(version="2", authority="h", scheme="https", fields=())
    answered = http("response", response_head(version="2", reason="", fields=()), stream=5)
    entry = entry_of(exchange(request=http("request", head), response=answered, stream=5))
    assert entry["request"]["httpVersion"] == entry["response"]["httpVersion"] == "HTTP/2"
    assert entry["request"]["url"] == "https://h/path?q=1"
    assert entry["request"]["headers"] == entry["response"]["headers"] == []
    assert entry["_stream"] == 5


def test_parts_that_are_missing() -> None:
    late = entry_of(exchange(request=None))
    assert late["request"]["method"] == "UNKNOWN"
    assert late["request"]["url"] == "https://10.0.0.2:443/"
    assert late["comment"] == "the request was not seen"
    assert late["startedDateTime"] == "2026-01-02T03:04:05.002000Z"
    assert (late["timings"]["send"], late["timings"]["wait"], late["time"]) == (0, 0, 3.0)
    unfinished = http("request", marks=(Mark.UNFINISHED,), problem="ended")
    ended = entry_of(exchange(request=unfinished, response=None, connection=None))
    assert ended["response"]["status"] == 0
    assert ended["comment"] == "no response was seen"
    assert (ended["_marks"], ended["_problem"]) == (["unfinished"], "ended")
    assert "serverIPAddress" not in ended
    neither = entry_of(exchange(request=None, response=None, connection=None))
    assert neither["request"]["url"] == "https://unknown.invalid/"
    assert neither["startedDateTime"] == "2026-01-02T03:04:05.005000Z"


def test_content() -> None:
    picture = answer(b"\x89PNG", "image/png", size=30, decoded_size=40, codings=("gzip",))
    content = entry_of(exchange(response=picture))["response"]["content"]
    assert content == {
        "size": 40,
        "mimeType": "image/png",
        "compression": 10,
        "text": base64.b64encode(b"\x89PNG").decode(),
        "encoding": "base64",
        "comment": "36 more bytes not kept",
    }
    called = answer(b"", "application/grpc+proto", size=12, decoded_size=7)
    content = entry_of(exchange(response=called))["response"]["content"]
    assert content["comment"] == "7 bytes of gRPC messages, which an archive has no place for"
    empty = http("response", response_head(fields=()), trailers=(("t", "v"),))
    response = entry_of(exchange(response=empty))["response"]
    assert response["content"] == {"size": 0, "mimeType": "x-unknown", "text": ""}
    assert response["_trailers"] == [{"name": "t", "value": "v"}]


def test_for_a_terminal_it_says_the_same_escaped() -> None:
    event = exchange(response=answer("a\x9b31m\u202e".encode(), "text/plain"))
    plain, shown = (b"".join(HarFormat(terminal=t).encode([event])[1]) for t in (False, True))
    assert "\x9b".encode() in plain
    assert b"a\\u009b31m\\u202e" in shown
    assert json.loads(shown.partition(b"\n]")[0]) == json.loads(plain.partition(b"\n]")[0])


def test_what_a_response_sets() -> None:
    cookie = "id=1; Path=/; Secure; Expires=Wed, 21 Oct 2026 07:28:00 GMT"
    head = response_head(status=302, fields=(("Location", "/x"), ("Set-Cookie", cookie)))
    response = entry_of(exchange(response=http("response", head)))["response"]
    assert response["redirectURL"] == "/x"
    assert response["cookies"] == [
        {
            "name": "id",
            "value": "1",
            "path": "/",
            "expires": "2026-10-21T07:28:00Z",
            "httpOnly": False,
            "secure": True,
        }
    ]


def posted(content_type: str, body: bytes, **changes: Any) -> Any:
    head = request_head(method="POST", fields=(("Content-Type", content_type),))
    request = http("request", head, body=body, size=len(body), **changes)
    return entry_of(exchange(request=request))["request"]["postData"]


def test_what_is_posted() -> None:
    form = "application/x-www-form-urlencoded"
    assert posted(form, b"a=%20&b") == {
        "mimeType": form,
        "text": "a=%20&b",
        "params": [{"name": "a", "value": " "}, {"name": "b", "value": ""}],
    }
    binary = {"mimeType": "image/png", "text": "iVBORw==", "params": [], "_encoding": "base64"}
    assert posted("image/png", b"\x89PNG") == binary
    assert posted("", b"", decoded_size=9)["comment"] == "9 more bytes not kept"
    parts = (
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n'
        b"Content-Type: text/plain\r\n\r\n1\r\n--B--\r\n"
    )
    assert posted("multipart/form-data; boundary=B", parts)["params"] == [
        {"name": "f", "fileName": "x", "contentType": "text/plain"}
    ]


def test_times_that_overlap_are_counted_once() -> None:
    """As in a call of gRPC that streams both ways: 11 ms in all, not 20."""
    asked = http("request", started_ns=START, time_ns=START + 10_000_000)
    answered = http("response", started_ns=START + 1_000_000, time_ns=START + 11_000_000)
    entry = entry_of(exchange(request=asked, response=answered))
    assert entry["time"] == 11.0
    timings = entry["timings"]
    assert (timings["send"], timings["wait"], timings["receive"]) == (1.0, 0, 10.0)


def test_times_never_run_backwards() -> None:
    early = http("response", started_ns=START - 5, time_ns=START - 9)
    timings = entry_of(exchange(response=early))["timings"]
    assert timings["wait"] == timings["receive"] == 0


LATIN = st.text(st.characters(max_codepoint=255), max_size=30)


@settings(deadline=None)
@given(st.binary(max_size=60), LATIN, st.booleans())
@pytest.mark.filterwarnings("error")
def test_nothing_captured_raises_or_breaks_the_file(body: bytes, value: str, cut: bool) -> None:
    fields = ((value, value), ("Content-Type", value), ("Cookie", value), ("Set-Cookie", value))
    told = {"body": body, "decoded_size": len(body) + cut, "problem": value}
    request = http("request", request_head(method=value, target=value, fields=fields), **told)
    response = http("response", response_head(reason=value, fields=fields), **told)
    file = File(HarFormat())
    file.write(exchange(request=request, response=response), exchange())
    entry, _ = file.entries()
    assert datetime.fromisoformat(entry["startedDateTime"])
    assert len(entry["request"]["headers"]) == 4
