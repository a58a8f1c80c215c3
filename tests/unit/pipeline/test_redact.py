# SPDX-License-Identifier: Apache-2.0
import importlib.util
from pathlib import Path

import msgspec
from exchanges import exchange, gap, plaintext, request, response, said
from hypothesis import given, settings
from hypothesis import strategies as st

from ecapture.events import ProcessExit
from ecapture.pipeline.redact import Redacted
from ecapture.protocols.messages import Direction, GrpcMessage, Note, ServerEvent, WebSocketMessage

SECRET = "s3cr3t-Value_42"


def redacted(event):
    (out,) = Redacted().feed([event])
    return out


def test_a_request():
    body = f"user=x&password={SECRET}".encode()
    asked = request(
        "POST",
        f"/login?next=/&token={SECRET};x",
        [
            ("Host", "example.com"),
            ("Authorization", f"Bearer {SECRET}"),
            ("COOKIE", f"a={SECRET}; b={SECRET}"),
            ("Referer", f"https://u:{SECRET}@h/?api_key={SECRET}"),
            ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
        ],
        body,
        authority=f"user:{SECRET}@example.com",
        trailers=(("X-Api-Key", SECRET),),
        problem=f"odd field 'Authorization: {SECRET}' and ?token={SECRET}",
    )
    shown = redacted(asked)
    assert SECRET not in repr(shown)
    assert shown.head.target == "/login?next=/&token=REDACTED"
    assert shown.head.fields == (
        ("Host", "example.com"),
        ("Authorization", "Bearer REDACTED"),
        ("COOKIE", "a=REDACTED; b=REDACTED"),
        ("Referer", "https://u:REDACTED@h/?api_key=REDACTED"),
        ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
    )
    assert shown.head.authority == "user:REDACTED@example.com"
    assert shown.trailers == (("X-Api-Key", "REDACTED"),)
    assert shown.body == b"user=x&password=" + b"*" * len(SECRET)
    assert (shown.size, shown.decoded_size) == (asked.size, asked.decoded_size)
    assert SECRET in repr(asked)


def test_an_exchange():
    asked = request(target=f"/?token={SECRET}")
    answered = response(fields=[("Set-Cookie", f"id={SECRET}; Secure")], body=b'{"token": "abc"}')
    early = response(103, [("Set-Cookie", f"id={SECRET}")]).head
    both = exchange(asked, answered, informational=(early,))
    shown = redacted(both)
    assert SECRET not in repr(shown)
    assert shown.response.head.fields == (("Set-Cookie", "id=REDACTED; Secure"),)
    assert shown.response.body == b'{"token": "***"}'
    assert (shown.pid, shown.time_ns) == (both.pid, both.time_ns)
    assert redacted(exchange(asked)).response is None


def test_a_message_of_an_exchange_is_read_once():
    asked = request(target=f"/?token={SECRET}")
    message, both = Redacted().feed([asked, exchange(asked)])
    assert both.request is message


def test_messages_of_other_protocols():
    text = f'{{"password": "{SECRET}"}}'
    stars = f'{{"password": "{"*" * len(SECRET)}"}}'
    to_client = Direction.TO_CLIENT
    assert redacted(said(WebSocketMessage(to_client, 0, data=text.encode()))).message.data == (
        stars.encode()
    )
    event = redacted(said(ServerEvent(to_client, 0, data=text, last_id=f"?token={SECRET}"))).message
    assert (event.data, event.last_id) == (stars, "?token=REDACTED")
    framed = b"\x0a\x20" + text.encode() + b"\x10\x01"
    masked = redacted(said(GrpcMessage(to_client, 0, data=framed))).message.data
    assert masked == b"\x0a\x20" + stars.encode() + b"\x10\x01"
    note = redacted(said(Note(to_client, 0, detail=f"at 'x?token={SECRET}'"))).message
    assert note.detail == "at 'x?token=REDACTED'"


def test_raw_bytes_keep_their_length():
    raw = (
        f"POST /a?api_key={SECRET} HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {SECRET}\r\n"
        f"Cookie: a={SECRET}\r\n\r\n" + f'{{"password": "{SECRET}"}}'
    ).encode()
    shown = redacted(plaintext(raw))
    assert SECRET.encode() not in shown.payload
    assert shown.payload == raw.replace(SECRET.encode(), b"*" * len(SECRET))
    assert shown.length == len(raw)


def test_images_are_not_searched():
    image = response(fields=[("Content-Type", "image/png")], body=b"?token=abc")
    assert redacted(image) is image


def test_what_has_no_credentials_comes_back_itself():
    asked, answered = request(fields=[("Host", "h")]), response(body=b"<p>hello</p>")
    events = [
        asked,
        answered,
        exchange(asked, answered),
        plaintext(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        gap(),
        ProcessExit(0, 7, "curl"),
        said(ServerEvent(Direction.TO_CLIENT, 0, data="x: y")),
    ]
    stage = Redacted()
    out = stage.feed(events)
    assert all(new is old for new, old in zip(out, events, strict=True))
    assert stage.flush(0) == stage.close() == []


texts = st.one_of(st.text(), st.sampled_from(["\udcff", "?token=\ud800", "Basic é", "://é:é@"]))


@given(texts, texts, texts, st.binary(max_size=50))
@settings(max_examples=300)
def test_any_text(name, value, target, body):
    asked = request(target=target, fields=[(name, value), ("Authorization", value)], body=body)
    shown = redacted(asked)
    assert shown.head.fields[0][0] == name
    assert len(shown.body) == len(body)
    msgspec.structs.asdict(redacted(said(ServerEvent(Direction.TO_CLIENT, 0, data=value))))


def test_the_reference_page_is_what_the_tables_say():
    root = Path(__file__).parents[3]
    spec = importlib.util.spec_from_file_location("gen", root / "tools" / "gen_redaction.py")
    gen = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gen)
    assert gen.PAGE.read_text() == gen.page(), "run tools/gen_redaction.py"
    assert max(map(len, gen.page().splitlines())) <= 100
