# SPDX-License-Identifier: Apache-2.0
"""What was recorded is read back, up to the last whole record of a file that was cut."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import plaintext_record, recording

from ecapture._wire import FRAME, LOSSES, WIRE_VERSION
from ecapture.errors import ECaptureError, TargetNotFound, UsageError
from ecapture.events import Losses
from ecapture.kernel.recording import MAGIC, Frame, Metadata, RecordingReader, frame

BATCHES = [plaintext_record(b"one"), plaintext_record(b"two") * 2]


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "recording"

    def written(content):
        path.write_bytes(content)
        return path

    return written


def read(path):
    """(batches, losses, malformed) of a recording."""
    reader = RecordingReader(path)
    try:
        return list(reader.batches()), reader.losses, reader.malformed
    finally:
        reader.close()


def test_batches_come_back_byte_for_byte(write):
    path = write(recording(*BATCHES, wall_offset_ns=77, version="1.2", kernel="6.1", machine="x"))
    reader = RecordingReader(path)
    assert reader.metadata == Metadata(77, WIRE_VERSION, "1.2", "6.1", "x")
    assert list(reader.batches()) == BATCHES
    assert reader.malformed == 0
    reader.close()


def test_the_format_stays_as_it_was_published(write):
    metadata = b'{"wall_offset_ns":5,"wire_version":%d}' % WIRE_VERSION
    content = b"ecapture recording 1\n"
    content += len(metadata).to_bytes(4, "little") + b"\1\0\0\0" + metadata
    content += b"\3\0\0\0\2\0\0\0abc"
    content += b"\x40\0\0\0\3\0\0\0" + b"".join(n.to_bytes(8, "little") for n in range(1, 9))
    assert read(write(content)) == ([b"abc"], Losses(1, 2, 3, 4, 5, 6, 7, 8), 0)


def test_losses_follow_the_snapshots(write):
    first, second = (frame(Frame.LOSSES, LOSSES.pack(n, *[0] * 7)) for n in (1, 2))
    reader = RecordingReader(write(recording(b"a") + first + frame(Frame.RECORDS, b"b") + second))
    seen = [reader.losses.ring_full_records for _batch in reader.batches()]
    assert seen == [0, 1]
    assert reader.losses.ring_full_records == 2
    reader.close()


def test_a_cut_recording_is_good_up_to_its_last_whole_record(write):
    records = [plaintext_record(text) for text in (b"one", b"two", b"three", b"four")]
    whole = recording(records[0] + records[1] + records[2], records[3])
    begin = len(recording())
    ends = [begin + FRAME.size + sum(map(len, records[:n])) for n in (1, 2, 3)]
    ends.append(len(whole))
    for cut in range(begin, len(whole) + 1):
        batches, _losses, malformed = read(write(whole[:cut]))
        there = sum(end <= cut for end in ends)
        assert b"".join(batches) == b"".join(records[:there])
        assert malformed == (cut not in (begin, ends[2], ends[3]))


def test_unknown_frames_are_counted_and_skipped(write):
    content = recording(b"a") + FRAME.pack(3, 99) + b"xyz" + frame(Frame.RECORDS, b"b")
    content += frame(Frame.LOSSES, b"short")
    assert read(write(content)) == ([b"a", b"b"], Losses(), 2)


def test_an_impossible_length_ends_the_reading(write):
    content = recording(b"a") + FRAME.pack(0xFFFFFFFF, Frame.RECORDS) + b"b"
    assert read(write(content)) == ([b"a"], Losses(), 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        MAGIC[:-1],
        MAGIC,
        MAGIC + b"\0",
        MAGIC + frame(Frame.RECORDS, b"x"),
        MAGIC + frame(Frame.METADATA, b""),
        MAGIC + frame(Frame.METADATA, b"{}"),
        MAGIC + frame(Frame.METADATA, b'{"wall_offset_ns":"x"}'),
        MAGIC + frame(Frame.METADATA, b'{"wall_offset_ns":%d}' % 10**40),
        MAGIC + frame(Frame.METADATA, b'{"wall_offset_ns":0,"version":"\xff"}'),
        MAGIC + frame(Frame.METADATA, b'{"x":' + b"[" * 100_000),
        MAGIC + FRAME.pack(0xFFFFFFFF, Frame.METADATA),
    ],
)
def test_what_is_no_recording_is_refused(write, content):
    with pytest.raises(UsageError, match="is not a recording"):
        RecordingReader(write(content))


def test_another_wire_version_is_refused_with_the_version_that_wrote_it(write):
    with pytest.raises(UsageError, match="wire version 999") as caught:
        RecordingReader(write(recording(wire_version=999, version="9.9")))
    assert "9.9" in caught.value.hint


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(TargetNotFound, match="not found"):
        RecordingReader(tmp_path / "nothing")
    with pytest.raises(TargetNotFound, match="Is a directory"):
        RecordingReader(tmp_path)


def test_no_descriptor_stays_open_after_a_refusal(write):
    path = write(b"text")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(UsageError):
            RecordingReader(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=6))
def test_only_the_packages_errors_escape_a_damaged_recording(write, damage):
    content = bytearray(recording(*BATCHES, kernel="6.1"))
    for at, value in damage:
        content[at % len(content)] = value
    with contextlib.suppress(ECaptureError):
        read(write(bytes(content)))


def test_metadata_is_json_for_people_with_other_tools(write):
    content = write(recording(wall_offset_ns=5)).read_bytes()
    length = int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little")
    start = len(MAGIC) + FRAME.size
    assert json.loads(content[start : start + length])["wall_offset_ns"] == 5
