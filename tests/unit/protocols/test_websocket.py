# SPDX-License-Identifier: Apache-2.0
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import four_trials
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from ecapture.protocols.messages import Direction, Mark, Note
from ecapture.protocols.websocket import WebSocketConnection, WebSocketParser
from ecapture.protocols.websocket_deflate import Deflate

TO_SERVER, TO_CLIENT = Direction


def frame(opcode, payload=b"", *, fin=True, rsv=0, key=b""):
    first = bytes((fin << 7 | rsv << 4 | opcode,))
    size, mask = len(payload), 0x80 if key else 0
    if size < 126:
        length = bytes((mask | size,))
    elif size < 1 << 16:
        length = bytes((mask | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((mask | 127,)) + size.to_bytes(8, "big")
    if key:
        payload = bytes(b ^ key[i & 3] for i, b in enumerate(payload))
    return first + length + key + payload


def read(pieces, late=False, direction=TO_CLIENT, deflate=None, **options):
    parser = WebSocketParser(direction, deflate=deflate, joined_late=late, **options)
    out = [message for piece in pieces for message in parser.feed(piece, 0)]
    return out + parser.end(0)


@pytest.mark.parametrize("direction", Direction)
def test_four_trials(direction):
    key = b"\x37\xfa\x21\x3d" if direction is TO_SERVER else b""
    parts = [
        frame(1, b"a first message, somewhat longer than others", key=key),
        frame(2, bytes(range(200)), key=key),
        frame(1, b"frag", fin=False, key=key) + frame(9, b"?", key=key)
        + frame(0, b"ment", fin=False, key=key) + frame(0, b"ed", key=key),
        frame(10, b"?", key=key),
        frame(1, key=key),
        frame(8, b"\x03\xe8bye", key=key),
    ]  # fmt: skip
    messages = four_trials(
        lambda pieces, late: read(pieces, late, direction), parts, tail=frame(1, b"x" * 99)[:50]
    )
    assert [(m.kind, m.data, m.fragments, m.close_code) for m in messages] == [
        ("text", b"a first message, somewhat longer than others", 1, 0),
        ("binary", bytes(range(200)), 1, 0),
        ("ping", b"?", 1, 0),
        ("text", b"fragmented", 3, 0),
        ("pong", b"?", 1, 0),
        ("text", b"", 1, 0),
        ("close", b"bye", 1, 1000),
    ]
    assert all(m.marks == () for m in messages)


def wsproto_side(client, compress, **takeover):
    extensions = []
    if compress:
        extension = PerMessageDeflate(**takeover)
        extension._enabled = True
        extension.finalize("; ".join(["", *(k for k, v in takeover.items() if v)]))
        extensions.append(extension)
    return FrameProtocol(client=client, extensions=extensions)


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.text(max_size=300), st.integers(1, 4)),
        st.tuples(st.just("binary"), st.binary(max_size=300), st.integers(1, 4)),
        st.tuples(st.just("binary"), st.just(b"again " * 8000), st.integers(1, 2)),
        st.tuples(st.just("ping"), st.binary(max_size=125), st.just(1)),
        st.tuples(st.just("pong"), st.binary(max_size=125), st.just(1)),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(MESSAGES, st.booleans(), st.booleans(), st.booleans(), st.sampled_from((1, 5, 99, 5000)))
def test_reads_what_wsproto_writes(messages, client, compress, fresh, step):
    side = "client_no_context_takeover" if client else "server_no_context_takeover"
    writer = wsproto_side(client, compress, **({side: True} if fresh else {}))
    stream = b""
    expected = []
    for kind, content, fragments in messages:
        data = content.encode() if isinstance(content, str) else content
        expected.append((kind, data, fragments))
        if kind == "ping":
            stream += writer._serialize_frame(Opcode.PING, data)
        elif kind == "pong":
            stream += writer._serialize_frame(Opcode.PONG, data)
        else:
            size = len(content) // fragments + 1
            pieces = [content[i * size : (i + 1) * size] for i in range(fragments)]
            for number, piece in enumerate(pieces):
                stream += writer.send_data(piece, fin=number == fragments - 1)
    stream += writer.close(CloseReason.NORMAL_CLOSURE, "done")
    deflate = Deflate(fresh, fresh) if compress else None
    got = read(
        [stream[i : i + step] for i in range(0, len(stream), step)],
        direction=TO_SERVER if client else TO_CLIENT,
        deflate=deflate,
    )
    assert [(m.kind, m.data, m.fragments) for m in got] == [*expected, ("close", b"done", 1)]
    assert got[-1].close_code == 1000
    assert all(m.marks == () for m in got)
    assert all(m.compressed == (compress and m.kind in {"text", "binary"}) for m in got)


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 3), st.integers(1, 60))
def test_accepts_whatever_wsproto_accepts(payloads, flips, step):
    """Where wsproto reads a stream without complaint, the same messages come out here."""
    noise = random.Random(repr(payloads))
    stream = bytearray(b"".join(frame(1 + (i & 1), p) for i, p in enumerate(payloads)))
    for _ in range(flips if stream else 0):
        stream[noise.randrange(len(stream))] ^= 1 << noise.randrange(8)
    reader = FrameProtocol(client=True, extensions=[])
    expected, pieces = [], []
    try:
        reader.receive_bytes(bytes(stream))
        for got in reader.received_frames():
            if got.opcode.iscontrol():
                continue
            pieces.append(got.payload.encode() if isinstance(got.payload, str) else got.payload)
            if got.message_finished:
                expected.append(b"".join(pieces))
                pieces = []
    except Exception:  # noqa: BLE001 - whatever it is, wsproto does not accept this
        return
    ours = read([bytes(stream[i : i + step]) for i in range(0, len(stream), step)])
    whole = [m.data for m in ours if not isinstance(m, Note) and m.kind in {"text", "binary"}]
    assert whole[: len(expected)] == expected


def test_context_takeover_is_followed_late_with_a_mark():
    packer = zlib.compressobj(wbits=-15)

    def packed(text):
        data = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
        return frame(1, data[:-4], rsv=4)

    packed(b'{"type":"hello","user":"someone"}')
    stream = packed(b'{"type":"hello","user":"other"}') + packed(b"plain new words")
    got = read([stream], late=True)
    assert got[0].marks == (Mark.JOINED_LATE,)
    assert got[0].data.replace(b"\x1a", b"") == b"{oth}"
    assert len(got[0].data) == len(b'{"type":"hello","user":"other"}')
    assert got[1].data == b"plain new words"
    assert got[1].marks == ()


def test_compression_that_was_not_agreed_on_is_marked():
    (message,) = read([frame(1, b"abc", rsv=4)])
    assert (message.data, message.compressed, message.marks) == (b"abc", False, (Mark.MALFORMED,))


def test_wrong_compression_costs_its_message_only():
    packer = zlib.compressobj(wbits=-15)
    good = (packer.compress(b"good") + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    got = read([frame(1, b"\xff\xff\xff", rsv=4) + frame(1, good, rsv=4)], deflate=Deflate())
    assert got[0].marks == (Mark.MALFORMED,)
    assert got[1].data == b"good"


def test_bombs_are_bounded_and_later_messages_are_read():
    packer = zlib.compressobj(wbits=-15)
    bomb = (packer.compress(bytes(200_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    after = (packer.compress(b"after it") + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    stream = frame(2, bomb, rsv=4) + frame(1, after, rsv=4)
    tracemalloc.start()
    got = read([stream[i : i + 1024] for i in range(0, len(stream), 1024)], deflate=Deflate())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got[0].marks == (Mark.LIMITED,)
    assert got[0].size == len(bomb)
    assert len(got[0].data) == 1 << 20
    assert got[1].data == b"after it"
    assert peak < 40 << 20


def test_long_messages_are_kept_to_the_limit_and_counted():
    for direction, key in ((TO_CLIENT, b""), (TO_SERVER, b"abcd")):
        stream = frame(2, b"0123456789" * 500, key=key) + frame(1, b"x", key=key)
        for step in (7, 100_000):
            pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
            got = read(pieces, direction=direction, message_limit=25)
            assert got[0].data == b"0123456789012345678901234"
            assert (got[0].size, got[0].decoded_size) == (5000, 5000)
            assert got[1].data == b"x"


def test_memory_is_flat_in_an_endless_message():
    parser = WebSocketParser(TO_CLIENT, message_limit=4096)
    parser.feed(frame(2, b"", fin=False), 0)
    header = b"\x00\x7f" + (1 << 20).to_bytes(8, "big")
    piece = bytes(1 << 16)
    tracemalloc.start()
    for _ in range(300):
        assert parser.feed(header, 0) == []
        for _ in range(16):
            assert parser.feed(piece, 0) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    (message,) = parser.feed(frame(0, b""), 0)
    assert message.size == 300 << 20
    assert message.fragments == 302


def test_violations_are_marked_and_let_pass():
    got = read(
        [frame(0, b"a") + frame(1, b"b", key=b"abcd") + b"\x81\x7e\x00\x01c" + frame(1, b"\xff")]
    )
    assert [(m.kind, m.data, m.marks) for m in got] == [
        ("unknown", b"a", (Mark.MALFORMED,)),
        ("text", b"b", (Mark.MALFORMED,)),
        ("text", b"c", (Mark.MALFORMED,)),
        ("text", b"\xff", (Mark.MALFORMED,)),
    ]
    got = read([frame(1, b"a", fin=False) + frame(1, b"b")])
    assert [(m.data, m.marks) for m in got] == [
        (b"a", (Mark.MALFORMED, Mark.UNFINISHED)),
        (b"b", ()),
    ]
    assert read([frame(8, b"\x03")])[0].marks == (Mark.MALFORMED,)


def test_a_cut_character_at_the_limit_is_no_fault():
    (message,) = read([frame(1, "ääää".encode())], message_limit=3)
    assert message.marks == ()


@pytest.mark.parametrize("step", [1, 50, 10_000])
def test_garbage_is_passed_over_and_said(step):
    noise = b"\xff\xff\xff\xff garbage \x83\x83"
    stream = frame(1, b"before") + noise + frame(1, b"one") * 5
    got = read([stream[i : i + step] for i in range(0, len(stream), step)])
    texts = [m.data for m in got if not isinstance(m, Note)]
    assert texts[0] == b"before"
    assert texts[-1] == b"one"
    assert any(isinstance(m, Note) and m.mark is Mark.MALFORMED and m.size for m in got)


def test_every_byte_is_in_a_message_or_a_note():
    frames = [frame(1, b"hello")] * 6
    stream = b"".join(frames[:3]) + b"\xff" * 10 + b"".join(frames[3:])
    got = read([stream])
    shown = sum(m.size + 2 for m in got if not isinstance(m, Note))
    passed = sum(m.size for m in got if isinstance(m, Note))
    assert shown + passed == len(stream)


def test_a_gap_within_a_payload_is_a_hole():
    parser = WebSocketParser(TO_SERVER)
    data = frame(2, b"0123456789", key=b"abcd") + frame(1, b"next", key=b"efgh")
    assert parser.feed(data[:9], 0) == []
    got = parser.feed(data[12:], 0, gap=3)
    assert (got[0].data, got[0].size, got[0].marks) == (b"0126789", 10, (Mark.GAP,))
    assert (got[1].data, got[1].marks) == (b"next", ())


@pytest.mark.parametrize("gap", [500, -1])
def test_after_any_other_gap_frames_are_sought(gap):
    parser = WebSocketParser(TO_CLIENT)
    got = parser.feed(frame(2, b"0123456789")[:5], 0)
    got += parser.feed(b"rest" + frame(1, b"next") * 4, 0, gap=gap)
    assert got[0].marks == (Mark.GAP, Mark.UNFINISHED)
    assert isinstance(got[1], Note)
    assert (got[1].mark, got[1].size) == (Mark.GAP, max(gap, 0) + 4)
    assert [m.data for m in got[2:]] == [b"next"] * 4


def test_the_end_gives_out_what_is_unfinished():
    got = read([frame(1, b"hello")[:4]])
    assert [(m.data, m.marks) for m in got] == [(b"he", (Mark.UNFINISHED,))]


def test_a_connection_keeps_its_directions_apart():
    connection = WebSocketConnection(exchange=3)
    assert connection.feed(TO_SERVER, frame(1, b"question", key=b"abcd")[:8], 1) == []
    (answer,) = connection.feed(TO_CLIENT, frame(1, b"answer"), 2)
    (question,) = connection.feed(TO_SERVER, frame(1, b"question", key=b"abcd")[8:], 3)
    assert (answer.data, answer.direction, answer.exchange) == (b"answer", TO_CLIENT, 3)
    assert (question.data, question.direction, question.time_ns) == (b"question", TO_SERVER, 3)
    assert connection.end(4) == []


@pytest.mark.parametrize("cut", [b"\x01\x01\xc3", frame(1, "é".encode())[:3]])
def test_a_character_whose_end_did_not_come_is_no_fault(cut):
    (message,) = read([cut])
    assert (message.data, message.marks) == (b"\xc3", (Mark.UNFINISHED,))


def test_a_character_with_a_hole_is_no_fault():
    parser = WebSocketParser(TO_CLIENT)
    data = frame(1, "aaéaaaaa".encode())
    got = parser.feed(data[:5], 0) + parser.feed(data[6:], 0, gap=1)
    assert [(m.data, m.marks) for m in got] == [(b"aa\xc3aaaaa", (Mark.GAP,))]


def test_a_gap_in_what_is_not_compressed_costs_no_history():
    packer = zlib.compressobj(wbits=-15)
    first, second = (
        (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        for text in (b"hello hello hello", b"hello hello hello again")
    )
    parser = WebSocketParser(TO_CLIENT, deflate=Deflate())
    parser.feed(frame(1, first, rsv=4) + frame(2, b"plain")[:3], 0)
    got = parser.feed(b"in" + frame(1, second, rsv=4), 0, gap=2)
    assert [(m.data, m.marks) for m in got] == [
        (b"pin", (Mark.GAP,)),
        (b"hello hello hello again", ()),
    ]


def test_a_header_without_its_end_is_said():
    (note,) = read([b"\x81\x7e\x01"])
    assert (note.mark, note.size) == (Mark.UNFINISHED, 3)
