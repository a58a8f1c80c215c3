# SPDX-License-Identifier: Apache-2.0
"""Records of secrets become events; what does not fit together says so."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture._wire import SCHEDULE, SECRET, Flag, Kind, Label
from ecapture.events import Secret, Summary
from ecapture.kernel.decode import Decoder
from ecapture.pipeline.flows import Flows
from ecapture.protocols.key_schedule import expand_label

RANDOM = bytes(range(32))

# struct ec_secret of wire.h, written out by hand
GOLDEN = bytes.fromhex(
    "e803000000000000"  # time_ns 1000
    "c8000000"  # size 200
    "0400"  # kind secret
    "0000"  # flags
    "64000000"  # pid 100
    "65000000"  # tid 101
    "e8030000"  # uid 1000
    "03000000"  # cpu
    "63 75 72 6c 00 00 00 00 00 00 00 00 00 00 00 00"  # comm
    "0070000000000000"  # handle
    "0500000000000000"  # generation
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"  # client random
    "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f"
    "45 58 50 4f 52 54 45 52 5f 53 45 43 52 45 54 00"  # label EXPORTER_SECRET
    "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "aa bb cc 00 00 00 00 00 00 00 00 00 00 00 00 00"  # secret
    "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "0300"  # length 3
    "00"  # label number
    "0000000000"  # padding
)


def secret_record(*, flags=0, text=b"", number=0, secret=b"key", length=None):
    return SECRET.pack(
        *(1000, SECRET.size, Kind.SECRET, flags, 100, 101, 1000, 3, b"curl", 0x7000, 5),
        *(RANDOM, text, secret, len(secret) if length is None else length, number),
    )


def schedule_record(kept, exporter, flags=0):
    return SCHEDULE.pack(
        *(1000, SCHEDULE.size, Kind.SCHEDULE, flags, 100, 101, 1000, 3, b"curl", 0x7000, 5),
        *(RANDOM, kept, exporter),
    )


def decoded(*records):
    decoder = Decoder(5_000_000)
    events = decoder.decode(b"".join(records))
    assert decoder.malformed == 0
    return events


def test_the_layout_is_that_of_the_header():
    assert decoded(GOLDEN) == [
        Secret(
            time_ns=5_001_000,
            pid=100,
            tid=101,
            uid=1000,
            comm="curl",
            conversation=(100, 0x7000, 5),
            label="EXPORTER_SECRET",
            client_random=RANDOM,
            secret=b"\xaa\xbb\xcc",
        )
    ]


@pytest.mark.parametrize("label", [label for label in Label if label])
def test_a_label_is_known_by_number_where_there_is_no_text(label):
    [event] = decoded(secret_record(number=label))
    assert (event.label, event.missing) == (label.name, "")


def test_text_wins_over_the_number():
    [event] = decoded(secret_record(text=b"OTHER\0rest", number=Label.CLIENT_RANDOM))
    assert event.label == "OTHER"


@pytest.mark.parametrize("number", [Label.UNKNOWN, max(Label) + 1, 255])
def test_no_label_at_all(number):
    [event] = decoded(secret_record(number=number))
    assert (event.label, event.missing) == ("", "unlabelled")


def test_what_could_not_be_read():
    unread, unjoined = decoded(
        secret_record(number=1, flags=Flag.FAULT), secret_record(number=1, flags=Flag.UNJOINED)
    )
    assert (unread.secret, unread.missing) == (b"", "unreadable")
    assert (unjoined.client_random, unjoined.secret, unjoined.missing) == (b"", b"key", "")


def test_a_length_that_cannot_be():
    [event] = decoded(secret_record(number=1, length=60_000))
    assert len(event.secret) == 64


def test_a_schedule_becomes_the_secrets_that_follow():
    master, finished = hashlib.sha256(b"m").digest(), hashlib.sha256(b"f").digest()
    exporter = expand_label("sha256", master, b"exp master", finished, 32)
    arrays = [b"", master, b"", b"", b"", finished, b"", b"", b""]
    kept = b"".join(array.ljust(64, b"\0") for array in arrays)
    events = decoded(schedule_record(kept, exporter))
    assert [event.label for event in events] == [
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    ]
    assert {event.client_random for event in events} == {RANDOM}
    assert {event.missing for event in events} == {""}


@pytest.mark.parametrize(("flags", "missing"), [(0, "unproven"), (Flag.FAULT, "unreadable")])
def test_a_schedule_that_tells_nothing(flags, missing):
    [event] = decoded(schedule_record(b"x" * 576, b"y" * 64, flags))
    assert (event.label, event.secret, event.missing) == ("", b"", missing)


def test_what_is_missing_is_counted():
    summary = Summary()
    events = decoded(secret_record(number=1), secret_record(number=1, flags=Flag.FAULT))
    assert Flows(summary).feed(events) == events
    assert (summary.events, summary.bytes, summary.unreadable) == (2, 3, 1)


@given(st.binary(min_size=SECRET.size - 48, max_size=SECRET.size - 48), st.integers(0, 0xFFFF))
def test_any_content_is_an_event(content, flags):
    head = SECRET.pack(
        *(1, SECRET.size, Kind.SECRET, flags, 1, 1, 1, 1, b"x", 0, 0, b"", b"", b"", 0, 0)
    )[:48]
    [event] = decoded(head + content)
    assert len(event.secret) <= 64


@pytest.mark.parametrize("kind", [Kind.SECRET, Kind.SCHEDULE])
def test_another_size_is_malformed(kind):
    decoder = Decoder(0)
    record = SECRET.pack(1, 192, kind, 0, 1, 1, 1, 1, b"x", 0, 0, b"", b"", b"", 0, 0)
    assert decoder.decode(record[:192]) == []
    assert decoder.malformed == 1
