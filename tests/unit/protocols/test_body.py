# SPDX-License-Identifier: Apache-2.0
import builtins
import gc
import gzip
import sys
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ecapture.protocols.body import ContentReader, codings_of
from ecapture.protocols.messages import Mark

TEXT = b"".join(b"line %d of the content\n" % i for i in range(3000))


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=3),
    "zstd": zstandard.compress,
}


def read(codings, pieces, **limits):
    reader = ContentReader(codings, **limits)
    out = b"".join([reader.feed(piece) for piece in pieces])
    reader.finish()
    return out, reader


def split(data, step):
    return [data[i : i + step] for i in range(0, len(data), step)]


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("coding", ENCODERS)
def test_undoes_each_coding_however_it_is_cut(coding, step):
    sent = ENCODERS[coding](TEXT)
    out, reader = read((coding,), split(sent, step))
    assert out == TEXT
    assert (reader.size, reader.decoded_size, reader.kept) == (len(sent), len(TEXT), len(TEXT))
    assert reader.codings == (coding,)
    assert reader.marks == ()


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_deflate_may_lack_its_zlib_wrapping(step):
    assert read(("deflate",), split(raw_deflate(TEXT), step))[0] == TEXT


@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from(sorted(ENCODERS)), max_size=4),
    st.integers(1, 50),
)
def test_undoes_stacks_of_codings(content, stack, step):
    sent = content
    for coding in stack:
        sent = ENCODERS[coding](sent)
    out, reader = read(tuple(reversed(stack)), split(sent, step))
    assert out == content
    assert reader.decoded_size == len(content)
    assert reader.marks == ()


def test_names_of_codings_come_outermost_first():
    assert codings_of(["gzip, BR", " zstd"]) == ("zstd", "br", "gzip")
    assert codings_of(["identity", "", "x-gzip"]) == ("gzip",)


def test_gzip_members_follow_each_other_and_padding_is_let_pass():
    sent = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 20
    for step in (1, 3, 1000):
        out, reader = read(("gzip",), split(sent, step))
        assert out == b"one two"
        assert reader.marks == ()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_bytes_after_the_end_are_marked(coding):
    out, reader = read((coding,), [ENCODERS[coding](TEXT) + b"tail"])
    assert out == TEXT
    assert reader.marks == (Mark.MALFORMED,)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_content_cut_short_is_marked(coding):
    out, reader = read((coding,), [ENCODERS[coding](TEXT)[:-5]])
    assert TEXT.startswith(out)
    assert reader.marks == (Mark.MALFORMED,)
    assert coding in reader.problem


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("coding", ENCODERS)
def test_what_never_was_in_that_coding_is_shown_as_sent(coding, step):
    content = b"<html>not encoded at all</html>"
    out, reader = read((coding,), split(content, step))
    assert out == content
    assert reader.codings == ()
    assert reader.marks == (Mark.MALFORMED,)
    assert (reader.size, reader.decoded_size) == (len(content), len(content))


def test_an_error_further_on_keeps_what_was_decoded():
    sent = bytearray(gzip.compress(TEXT))
    sent[-8] ^= 1  # the checksum
    out, reader = read(("gzip",), [bytes(sent), b"more"])
    # zlib gives nothing of the call that fails, and is called for 64 KiB at a time.
    assert out == TEXT[: 1 << 16]
    assert reader.marks == (Mark.MALFORMED,)
    assert reader.size == len(sent) + 4


def test_unknown_codings_are_shown_as_sent_and_said():
    out, reader = read(("lzma",), [b"abc"])
    assert out == b"abc"
    assert reader.marks == (Mark.UNDECODED,)
    assert "lzma" in reader.problem
    out, reader = read(("gzip", "compress"), [gzip.compress(b"\x1f\x9d...")])
    assert out == b"\x1f\x9d..."
    assert reader.codings == ("gzip",)


@pytest.mark.parametrize(("coding", "module"), [("br", "brotli"), ("zstd", "zstandard")])
def test_a_library_that_is_not_installed_is_said(monkeypatch, coding, module):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    sent = ENCODERS[coding](b"abc")
    out, reader = read((coding,), [sent])
    assert out == sent
    assert reader.marks == (Mark.UNDECODED,)
    assert module in reader.problem
    out, reader = read(("gzip", coding, "deflate"), [gzip.compress(sent)])
    assert out == sent
    assert reader.codings == ("gzip",)


def test_too_many_codings_are_not_followed():
    out, reader = read(("gzip",) * 5, [b"abc"])
    assert out == b"abc"
    assert reader.marks == (Mark.LIMITED,)


@pytest.mark.parametrize("coding", ["", *ENCODERS])
def test_no_more_than_the_limit_is_given_out_and_all_is_counted(coding):
    sent = ENCODERS[coding](TEXT) if coding else TEXT
    for step in (10, 1 << 20):
        out, reader = read((coding,) if coding else (), split(sent, step), body_limit=1000)
        assert out == TEXT[:1000]
        assert (reader.kept, reader.decoded_size, reader.size) == (1000, len(TEXT), len(sent))
        assert reader.marks == ()


@pytest.mark.parametrize("coding", ENCODERS)
def test_bombs_cost_what_is_permitted(coding):
    bomb = ENCODERS[coding](bytes(100_000_000))
    tracemalloc.start()
    out, reader = read((coding,), split(bomb, 16384), expansion_floor=1 << 20, expansion_ratio=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.marks == (Mark.LIMITED,)
    assert reader.size == len(bomb)
    assert reader.decoded_size <= max(1 << 20, 2 * len(bomb))
    assert len(out) <= 1 << 20
    assert peak < 8 << 20, "the bomb's size is not what is kept"


@pytest.mark.parametrize("coding", ENCODERS)
def test_nothing_of_a_bomb_stays(coding):
    bomb = ENCODERS[coding](bytes(1_000_000))
    tracemalloc.start()
    for _ in range(100):
        assert read((coding,), [bomb], expansion_floor=1000, expansion_ratio=1)[1].marks
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 1 << 20


def test_work_between_codings_counts_too():
    # Empty members inside: the outer coding expands to much that comes to nothing.
    inner = zlib.compress(b"") + bytes(50_000_000)
    out, reader = read(
        ("gzip", "deflate"), [gzip.compress(inner)], expansion_floor=1 << 20, expansion_ratio=1
    )
    assert out == b""
    assert reader.marks == (Mark.LIMITED,)


def test_many_empty_members_end():
    out, reader = read(("gzip",), [gzip.compress(b"") * 5000])
    assert out == b""
    assert reader.marks == (Mark.LIMITED,)


def test_zstd_windows_beyond_what_the_standard_permits_are_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    sent = packer.compress(TEXT) + packer.flush()
    out, reader = read(("zstd",), [sent])
    assert out == sent
    assert reader.marks == (Mark.MALFORMED,)


def test_a_gap_ends_decoding_but_not_counting():
    sent = gzip.compress(TEXT)
    reader = ContentReader(("gzip",))
    first = reader.feed(sent[:2000])
    reader.gap(500)
    assert reader.feed(sent[2500:]) == b""
    reader.finish()
    assert TEXT.startswith(first)
    assert reader.size == len(sent)
    assert reader.marks == (Mark.GAP,)


def test_a_gap_in_plain_content_is_a_hole():
    reader = ContentReader()
    assert reader.feed(b"abc") + (reader.gap(3) or b"") + reader.feed(b"ghi") == b"abcghi"
    assert (reader.size, reader.decoded_size, reader.kept) == (9, 9, 6)
    assert reader.marks == (Mark.GAP,)


def test_the_tap_sees_what_is_beyond_the_limit():
    seen = []
    reader = ContentReader(("gzip",), body_limit=10, tap=seen.append)
    assert reader.feed(gzip.compress(TEXT)) == TEXT[:10]
    assert b"".join(seen) == TEXT
    assert not reader.counting


@given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=200), st.integers(1, 20))
def test_nothing_escapes(coding, garbage, step):
    for sent in (garbage, ENCODERS[coding](garbage)[:-1] + garbage):
        out, reader = read((coding,), split(sent, step))
        assert reader.size == len(sent)
        assert len(out) == reader.kept <= reader.decoded_size


@pytest.mark.parametrize("codings", [("br", "br"), ("br", "gzip", "br"), ("gzip", "br", "br")])
def test_a_library_that_is_missing_twice_is_said(monkeypatch, codings):
    monkeypatch.setitem(sys.modules, "brotli", None)
    known = codings[: codings.index("br")]
    out, reader = read(codings, [gzip.compress(b"abc") if known else b"abc"])
    assert (out, reader.codings, reader.marks) == (b"abc", known, (Mark.UNDECODED,))


def test_a_gap_of_unknown_size_is_not_called_nothing():
    reader = ContentReader()
    reader.gap(0)
    assert (reader.size, reader.marks, reader.problem) == (0, (Mark.GAP,), "bytes missing")
