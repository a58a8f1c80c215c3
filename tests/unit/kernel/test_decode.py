# SPDX-License-Identifier: Apache-2.0
"""Records become events; what is not as the wire says is counted, and raises nothing."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import end_record, exit_record, padded, plaintext_record

from ecapture._wire import PIECE_MAXIMUM, PLAINTEXT, TUPLE_VALUE, Family, Flag, TupleSource
from ecapture.events import Connection, ConversationEnd, Negotiated, Plaintext, ProcessExit
from ecapture.kernel.decode import NO_CONNECTION, Decoder

# struct ec_plaintext of wire.h, written out by hand
GOLDEN = bytes.fromhex(
    "e803000000000000"  # time_ns 1000
    "93000000"  # size 147
    "0100"  # kind plaintext
    "1000"  # flags last
    "64000000"  # pid 100
    "65000000"  # tid 101
    "e8030000"  # uid 1000
    "03000000"  # cpu
    "63 75 72 6c 00 00 00 00 00 00 00 00 00 00 00 00"  # comm
    "0070000000000000"  # handle
    "0500000000000000"  # generation
    "2a00000000000000"  # stream_offset 42
    "0340000000000000"  # call_length 16387
    "0040000000000000"  # call_offset 16384
    "7f000001 00000000 00000000 00000000"  # local
    "0a000002 00000000 00000000 00000000"  # remote
    "409c bb01 0200 0100"  # ports 40000 and 443, IPv4, by descriptor
    "0403 0113"  # TLS 1.3, TLS_AES_128_GCM_SHA256
    "07000000"  # fd
    "01"  # write
    "02"  # hook
    "000000000000"  # padding
    "616263"  # payload
    "0000000000"  # up to eight bytes
)
GOLDEN_EVENT = Plaintext(
    time_ns=5_001_000,
    pid=100,
    tid=101,
    uid=1000,
    comm="curl",
    direction="write",
    conversation=(100, 0x7000, 5),
    connection=Connection("ipv4", "127.0.0.1", 40000, "10.0.0.2", 443, "descriptor"),
    no_connection="",
    stream_offset=42,
    call_length=16387,
    call_offset=16384,
    length=3,
    payload=b"abc",
    missing="",
    assumed=False,
    last=True,
    fd=7,
    hook=2,
    negotiated=Negotiated("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
)


def decode(batch):
    """All events, and how many records were malformed."""
    decoder = Decoder(0)
    return decoder.decode(batch), decoder.malformed


def ends(local, remote, family, source, version=0, cipher=0):
    addresses = local.ljust(16, b"\0"), remote.ljust(16, b"\0")
    return TUPLE_VALUE.pack(*addresses, 1, 2, family, source, version, cipher)


def test_golden_bytes():
    decoder = Decoder(5_000_000)
    assert decoder.decode(GOLDEN) == [GOLDEN_EVENT]
    assert decoder.malformed == 0


def test_a_batch_keeps_its_order():
    batch = plaintext_record(b"a") + end_record() + plaintext_record(b"", size=PLAINTEXT.size)
    batch += exit_record()
    found, malformed = decode(batch)
    assert [type(event) for event in found] == [Plaintext, ConversationEnd, Plaintext, ProcessExit]
    assert found[1] == ConversationEnd(2000, 100, "curl", (100, 0x7000, 5), "freed")
    assert found[3] == ProcessExit(3000, 100, "curl")
    assert malformed == 0


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 31, 32, 33, 4096, PIECE_MAXIMUM])
def test_payloads_of_every_alignment_are_exact(size):
    payload = bytes(i & 0xFF for i in range(size))
    found, malformed = decode(plaintext_record(payload) + plaintext_record(b"next"))
    assert [event.payload for event in found] == [payload, b"next"]
    assert malformed == 0


@pytest.mark.parametrize(
    ("flags", "missing", "assumed", "last"),
    [
        (Flag.LAST, "", False, True),
        (Flag(0), "", False, False),
        (Flag.LAST | Flag.FAULT, "unreadable", False, True),
        (Flag.LAST | Flag.SENDFILE, "sendfile", False, True),
        (Flag.LAST | Flag.TRUNCATED, "truncated", False, True),
        (Flag.TRUNCATED, "", False, False),  # only the last piece has less than it should
        (Flag.LAST | Flag.ASSUMED, "", True, True),
    ],
)
def test_flags(flags, missing, assumed, last):
    (event,), _ = decode(plaintext_record(b"", flags=flags, call_length=PIECE_MAXIMUM * 2))
    assert (event.missing, event.assumed, event.last) == (missing, assumed, last)


def test_the_length_of_a_piece_is_what_it_should_be():
    full = plaintext_record(b"x" * 16384, flags=0, call_length=20000)
    cut = plaintext_record(
        b"y", flags=Flag.LAST | Flag.TRUNCATED, call_length=20000, call_offset=16384
    )
    (first, second), _ = decode(full + cut)
    assert (first.length, second.length, len(second.payload)) == (16384, 3616, 1)


@pytest.mark.parametrize(
    ("raw", "connection"),
    [
        (
            ends(b"\x7f\0\0\1", b"\x08\x08\x08\x08", Family.IPV4, TupleSource.NESTED_CALL),
            Connection("ipv4", "127.0.0.1", 1, "8.8.8.8", 2, "nested_call"),
        ),
        (
            ends(bytes(15) + b"\1", b"\xfe\x80" + bytes(13) + b"\x02", Family.IPV6, 1),
            Connection("ipv6", "::1", 1, "fe80::2", 2, "descriptor"),
        ),
        (  # an IPv6 socket that speaks IPv4 (RFC 4291, 2.5.5.2)
            ends(
                bytes(10) + b"\xff\xff\x0a\0\0\1", bytes(10) + b"\xff\xff\x0a\0\0\2", Family.IPV6, 1
            ),
            Connection("ipv4", "10.0.0.1", 1, "10.0.0.2", 2, "descriptor"),
        ),
    ],
)
def test_connections(raw, connection):
    (event,), _ = decode(plaintext_record(tuple=raw))
    assert (event.connection, event.no_connection) == (connection, "")


@pytest.mark.parametrize("source", [TupleSource.NONE, TupleSource.NOT_INET, TupleSource.UNREADABLE])
def test_a_missing_connection_says_why(source):
    (event,), _ = decode(plaintext_record(tuple=ends(b"", b"", Family.NONE, source)))
    assert event.connection is None
    assert event.no_connection == NO_CONNECTION[source]


@pytest.mark.parametrize(
    ("version", "cipher", "negotiated"),
    [
        (0, 0, None),
        (0, 0x1301, None),  # a suite of a version that was not told
        (0x0303, 0xC030, Negotiated("TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")),
        (0x0304, 0x13FE, Negotiated("TLSv1.3", "0x13FE")),
        (5, 0, Negotiated("TLSv1.3", "")),  # as GnuTLS numbers them
        (0x7777, 0x1301, None),  # no version of TLS: the library's object was something else
    ],
)
def test_what_was_agreed_on(version, cipher, negotiated):
    raw = ends(b"", b"", Family.NONE, TupleSource.NONE, version, cipher)
    (event,), _ = decode(plaintext_record(tuple=raw))
    assert event.negotiated == negotiated


def test_names_that_are_no_text_are_shown_as_what_they_are():
    (event,), _ = decode(plaintext_record(comm=b"a b\xff\n\0rubbish"))
    assert event.comm == "a b\\xff\n"


@pytest.mark.parametrize(
    "batch",
    [
        plaintext_record(size=1 << 31),
        plaintext_record(size=0),
        plaintext_record(size=47),
        plaintext_record(kind=0),
        plaintext_record(kind=99),
        plaintext_record(b"", size=PLAINTEXT.size - 1),
        plaintext_record(b"more than the call", call_length=3),
        plaintext_record(call_length=10, call_offset=11),
        plaintext_record(b"x" * (PIECE_MAXIMUM + 1), flags=0, call_length=1 << 20),
        end_record()[:-1],
        end_record().replace(b"\x40\0\0\0\2\0", b"\x48\0\0\0\2\0") + bytes(8),
        b"\0",
        GOLDEN[:47],
    ],
)
def test_a_malformed_record_is_counted_and_yields_nothing(batch):
    found, malformed = decode(batch)
    assert found == []
    assert malformed == 1


def test_what_follows_a_malformed_record_of_believable_size_is_read():
    found, malformed = decode(plaintext_record(kind=99) + plaintext_record(b"after"))
    assert [event.payload for event in found] == [b"after"]
    assert malformed == 1


@pytest.mark.parametrize("cut", range(1, len(GOLDEN) - 5))
def test_a_record_cut_anywhere_is_one_malformed(cut):
    found, malformed = decode(plaintext_record(b"before") + GOLDEN[:cut])
    assert [event.payload for event in found] == [b"before"]
    assert malformed == 1


@given(st.binary(max_size=600))
@example(b"\xff" * 200)
def test_random_bytes_raise_nothing(batch):
    found, malformed = decode(batch)
    assert len(found) + malformed <= len(batch) // 48 + 1
    assert bool(found or malformed) == bool(batch)


@given(
    records=st.lists(
        st.sampled_from([GOLDEN, end_record(), exit_record(), plaintext_record(b"z" * 100)]),
        min_size=1,
    ),
    damage=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
)
def test_damaged_batches_raise_nothing_and_events_stay_sound(records, damage):
    batch = bytearray(b"".join(records))
    for at, value in damage:
        batch[at % len(batch)] = value
    found, malformed = decode(bytes(batch))
    assert len(found) + malformed >= 1
    for event in found:
        if type(event) is Plaintext:
            assert 0 <= len(event.payload) <= event.length
            assert event.direction in ("read", "write")


def test_memory_stays_bounded_over_endless_names_and_connections():
    decoder = Decoder(0)
    for number in range(0, 70_000, 500):
        decoder.decode(
            b"".join(
                plaintext_record(b"", comm=b"c%d" % n, tuple=ends(b"%d" % n, b"", Family.IPV4, 1))
                for n in range(number, number + 500)
            )
        )
    assert len(decoder._names) <= 65536
    assert len(decoder._connections) <= 65536


def test_padding_is_up_to_eight_bytes():
    assert len(padded(GOLDEN)) == len(GOLDEN) == 152
