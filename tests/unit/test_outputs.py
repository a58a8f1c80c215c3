# SPDX-License-Identifier: Apache-2.0
"""A format joined to a sink: what is written, and what a recording keeps beside the records."""

import json
import os
from pathlib import Path

import pytest
from exchanges import exchange, request, response
from records import exited, plaintext, plaintext_record

from ecapture.errors import SinkError, UsageError
from ecapture.events import Losses
from ecapture.formats.text import TextFormat
from ecapture.kernel.recording import Metadata, RecordingReader
from ecapture.outputs import FormatOutput, HarOutput, RecordOutput, open_writer
from ecapture.sinks.destination import FileDestination, parse
from ecapture.sinks.rotation import Rotation


def read(path):
    reader = RecordingReader(path)
    batches = list(reader.batches())
    reader.close()
    return reader, batches


def test_a_format_writes_events_and_nothing_else(tmp_path):
    path = tmp_path / "text"
    output = FormatOutput(TextFormat(), str(path))
    output.opening(Metadata(0))
    output.records(b"rubbish")
    output.events([plaintext(b"one"), exited()])
    output.events([])
    output.events([plaintext(b"two")])
    output.close(Losses())
    assert path.read_bytes() == b"".join(
        TextFormat().encode([plaintext(b"one"), plaintext(b"two")])
    )


def archive(path):
    with Path(path).open() as file:
        return [entry["request"]["url"] for entry in json.load(file)["log"]["entries"]]


def test_an_archive_is_whole_after_every_write(tmp_path):
    path = tmp_path / "archive"
    output = HarOutput(FileDestination(str(path)), lambda _pid: "")
    output.opening(Metadata(0))
    for number in (1, 2):
        output.records(b"rubbish")
        asked = request(target=f"/{number}")
        output.events([plaintext(b"no exchange"), exchange(asked, response())])
        output._writer.flush()
        assert len(archive(path)) == number
    output.events([])
    output.close(Losses())
    assert [url.rpartition("/")[2] for url in archive(path)] == ["1", "2"]


@pytest.mark.parametrize(
    "destination", ["tcp://127.0.0.1:1", "ws://127.0.0.1:1/", "file.har with rotation"]
)
def test_an_archive_is_one_document(destination):
    rotation = Rotation(size=1 << 20) if destination.startswith("file") else Rotation()
    with pytest.raises(UsageError, match="one document"):
        HarOutput(parse(destination, rotate=rotation), lambda _pid: "")


def test_a_recording_is_what_was_drained_and_the_last_losses(tmp_path):
    path = tmp_path / "recording"
    output = RecordOutput(str(path), lambda pid: f"container of {pid}")
    output.opening(Metadata(7))
    batch = plaintext_record(b"x")
    output.records(batch)
    output.events([plaintext(b"x"), plaintext(b"x")])
    output.records(b"")
    output.close(Losses(ring_full_records=3, truncated_bytes=9))
    reader, batches = read(path)
    assert batches == [batch]
    assert reader.metadata.wall_offset_ns == 7
    assert reader.losses == Losses(ring_full_records=3, truncated_bytes=9)
    assert reader.malformed == 0
    assert path.read_bytes().count(b"container of 100") == 1


def test_a_recording_is_not_for_terminals(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
    with pytest.raises(UsageError, match="terminal"):
        RecordOutput("-", lambda _pid: "")


def test_a_file_is_opened_at_once(tmp_path):
    with pytest.raises(SinkError):
        open_writer(str(tmp_path))
    writer = open_writer(str(tmp_path / "out"))
    assert (tmp_path / "out").exists()
    writer.close()


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"new\n"), (b"old\n", b"old\nnew\n"), (b"ol", b"ol\nnew\n")]
)
def test_what_is_appended_begins_a_line(tmp_path, before, after):
    path = tmp_path / "keys"
    path.write_bytes(before)
    writer = open_writer(str(path), append=True)
    writer.write(b"new\n")
    writer.close()
    assert path.read_bytes() == after
