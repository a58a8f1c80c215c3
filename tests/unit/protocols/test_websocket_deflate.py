# SPDX-License-Identifier: Apache-2.0
import random
import zlib

import pytest

from ecapture.errors import ProtocolError
from ecapture.protocols.websocket_deflate import FLUSH, UNKNOWN, Deflate, Inflater

PLENTY = 1 << 30


class Deflater:
    """The sending side, with its history."""

    def __init__(self, bits=15):
        self.packer = zlib.compressobj(wbits=-bits)

    def message(self, data):
        return (self.packer.compress(data) + self.packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
            FLUSH
        )


def inflate(inflater, sent, bound=PLENTY):
    pieces, whole = inflater.feed(sent, bound)
    more, whole_too = inflater.feed(FLUSH, bound)
    inflater.end_message()
    assert whole
    assert whole_too
    return b"".join(pieces + more)


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_history_goes_on_from_message_to_message(bits):
    deflater, inflater = Deflater(bits), Inflater(takeover=True, seen=True)
    words = random.Random(1)
    texts = [
        b" ".join(words.choice([b"alpha", b"beta", b"gamma"]) for _ in range(n))
        for n in (5, 9000, 50)
    ]
    for text in [*texts, *texts]:
        assert inflate(inflater, deflater.message(text)) == text


def test_without_takeover_each_message_stands_alone():
    inflater = Inflater(takeover=False, seen=True)
    for text in (b"again and again", b"again and again"):
        assert inflate(inflater, Deflater().message(text)) == text


def test_an_unseen_history_is_made_up_and_the_rest_is_exact():
    deflater, inflater = Deflater(), Inflater(takeover=True, seen=False)
    deflater.message(b"the quick brown fox")
    out = inflate(inflater, deflater.message(b"ABC the quick brown fox DEF"))
    assert out.startswith(b"ABC")
    assert out.endswith(b" DEF")
    assert UNKNOWN in out
    assert inflater.guessing
    noise = random.Random(2).randbytes(40_000)
    assert inflate(inflater, deflater.message(noise)) == noise
    assert not inflater.guessing
    assert inflate(inflater, deflater.message(noise[-900:])) == noise[-900:]


def test_a_final_block_ends_no_history():
    deflater, inflater = Deflater(), Inflater(takeover=True, seen=True)
    first = b"some words that come again"
    packer = zlib.compressobj(wbits=-15)
    # RFC 7692, 7.2.3.4: a message may end with a final block; then an octet of zeros follows.
    assert inflate(inflater, packer.compress(first) + packer.flush() + b"\x00") == first
    later = zlib.compressobj(wbits=-15, zdict=first)
    second = b"and some words that come again"
    sent = later.compress(second) + later.flush(zlib.Z_SYNC_FLUSH)
    assert inflate(inflater, sent.removesuffix(FLUSH)) == second
    assert deflater is not None


def test_bounds_hold():
    inflater = Inflater(takeover=True, seen=True)
    pieces, whole = inflater.feed(Deflater().message(bytes(50_000_000)), 1 << 20)
    assert not whole
    assert sum(map(len, pieces)) <= (1 << 20) + (1 << 16)
    with pytest.raises(ProtocolError):
        Inflater(takeover=True, seen=True).feed(b"\x03\x00" * 100, PLENTY)


def test_many_small_messages_keep_one_history():
    deflater, inflater = Deflater(), Inflater(takeover=True, seen=True)
    for number in range(3000):
        text = b"%d" % number
        assert inflate(inflater, deflater.message(text)) == text
        assert len(inflater._recent) <= 513
    assert inflater._recent_size <= (1 << 15) + (1 << 16)


def test_wrong_bytes_raise_the_package_s_error_and_it_goes_on():
    inflater = Inflater(takeover=True, seen=True)
    with pytest.raises(ProtocolError, match="permessage-deflate"):
        inflater.feed(b"\xff\xff\xff\xff", PLENTY)
    assert inflate(inflater, Deflater().message(b"fresh")) == b"fresh"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate", Deflate()),
        ("foo, Permessage-Deflate; server_no_context_takeover", Deflate(False, True)),
        (
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
            Deflate(True, False),
        ),
    ],
)
def test_agreement(text, expected):
    assert Deflate.agreed(text) == expected
