# SPDX-License-Identifier: Apache-2.0
"""A format joined to a sink: what is written, and what a recording keeps beside the records."""

import json
import os
import queue
import socket
import struct
import threading
from pathlib import Path

import pytest
from exchanges import exchange, request, response
from records import exited, plaintext, plaintext_record

from ecapture.errors import SinkError, UsageError
from ecapture.events import Interface, Losses, Packets, Statement
from ecapture.formats.pcapng import Block, Code, blocks, enhanced_packet, options_of
from ecapture.formats.text import TextFormat
from ecapture.kernel.recording import Metadata, RecordingReader
from ecapture.outputs import FormatOutput, HarOutput, PacketOutput, RecordOutput, open_writer
from ecapture.sinks.destination import FileDestination, TcpDestination, parse
from ecapture.sinks.rotation import Rotation

DEADLINE = 60


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


def test_a_recording_of_a_database_server_tells_its_container(tmp_path):
    path = tmp_path / "recording"
    output = RecordOutput(str(path), lambda pid: f"container of {pid}")
    output.opening(Metadata(0))
    asked = Statement(2, 1, 100, 101, 0, "mysqld", "mysql", "query", 5)
    output.records(plaintext_record(b"x"))
    output.events([asked, asked])
    output.close(Losses())
    reader, _batches = read(path)
    assert reader.containers == {100: "container of 100"}
    assert path.read_bytes().count(b"container of 100") == 1


class Receiver:
    """Takes connections one after the other and keeps what comes."""

    def __init__(self, *sizes):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.destination = TcpDestination(*self._listener.getsockname())
        self.got = queue.Queue()
        self._arrived = threading.Condition()
        self._all = b""
        self._thread = threading.Thread(target=self._run, args=(sizes,), daemon=True)
        self._thread.start()

    def _run(self, sizes):
        # Of the first connections so much is read before they are broken off, of the last all.
        for until in (*sizes, None):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                data = b""
                while until is None or until not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    data += piece
                    with self._arrived:
                        self._all += piece
                        self._arrived.notify_all()
                if until is not None:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.got.put(data)
        self._listener.close()

    def wait_for(self, content):
        with self._arrived:
            assert self._arrived.wait_for(lambda: content in self._all, DEADLINE)

    def received(self):
        return list(frames(self.got.get(timeout=DEADLINE)))


def frames(content):
    """Each packet of a pcapng file, with the name of the interface that it says it is of."""
    names = []
    for at, kind, length in blocks(content):
        if kind == Block.INTERFACE:
            options = dict(options_of(content, at + 16, at + length - 4))
            names.append(options[Code.INTERFACE_NAME].decode())
        elif kind == Block.PACKET:
            number, _high, _low, size = struct.unpack_from("<IIII", content, at + 8)
            yield names[number], content[at + 28 : at + 28 + size]


def interface(number):
    return Interface(1, number, f"eth{number}", 1, 0)


def packet(number):
    frame = b"packet of eth%d" % number
    return Packets(2, enhanced_packet(number, 1, frame))


def test_interfaces_that_appear_later_are_told_apart_by_a_receiver():
    receiver = Receiver()
    output = PacketOutput(receiver.destination)
    output.opening(Metadata(0))
    output.events([interface(0), interface(1), packet(1)])
    receiver.wait_for(b"packet of eth1")
    output.events([interface(2), packet(2), packet(0)])
    output.close(Losses())
    assert receiver.received() == [
        ("eth1", b"packet of eth1"),
        ("eth2", b"packet of eth2"),
        ("eth0", b"packet of eth0"),
    ]


def test_and_by_one_that_was_away():
    receiver = Receiver(b"packet of eth0")
    output = PacketOutput(receiver.destination)
    output.opening(Metadata(0))
    output.events([interface(0), packet(0)])
    assert receiver.received() == [("eth0", b"packet of eth0")]
    for number in (1, 2, 3):
        output.events([interface(number), packet(number)])
    receiver.wait_for(b"packet of eth3")
    output.events([interface(4), packet(4)])
    output.close(Losses())
    # The first may come twice: a reset does not tell how much was taken in before it.
    later = [found for found in receiver.received() if found[1] != b"packet of eth0"]
    assert later == [(f"eth{number}", b"packet of eth%d" % number) for number in (1, 2, 3, 4)]


def test_and_where_some_were_dropped():
    receiver = Receiver()
    output = PacketOutput(receiver.destination)
    output.opening(Metadata(0))
    output.events([interface(0), packet(0)])
    receiver.wait_for(b"packet of eth0")
    sink = output._writer
    with sink._changed:  # the thread can take nothing out meanwhile
        output.events([packet(0)])
        sink._limit = 0
        output.events([interface(1), packet(1)])
        sink._limit = 1 << 20
        output.events([interface(2), packet(2), packet(1)])
    with pytest.raises(SinkError, match="1 pieces"):
        output.close(Losses())
    assert receiver.received() == [
        ("eth0", b"packet of eth0"),
        ("eth0", b"packet of eth0"),
        ("eth2", b"packet of eth2"),
        ("eth1", b"packet of eth1"),
    ]
