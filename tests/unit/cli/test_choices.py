# SPDX-License-Identifier: Apache-2.0
"""What the options ask for: stages, outputs, colours, and what is refused."""

from __future__ import annotations

import os
import tty

import pytest
from records import plaintext

from ecapture.cli.capture import tls
from ecapture.cli.choices import _colour, key_log, make_outputs, make_stages, parses, truncation
from ecapture.errors import UsageError
from ecapture.events import Losses
from ecapture.kernel.recording import Metadata
from ecapture.outputs import FormatOutput, HarOutput, PacketOutput, RecordOutput
from ecapture.pipeline.filter import Filtered
from ecapture.pipeline.held import Held
from ecapture.pipeline.messages import Messages
from ecapture.pipeline.redact import Redacted


def given(*arguments):
    """The values that the options of ``tls`` have."""
    return tls.make_context("tls", list(arguments)).params


def nowhere(_pid):
    return ""


def stages(*arguments):
    return [type(stage) for stage in make_stages(given(*arguments), nowhere)]


def test_messages_are_parsed_unless_the_bytes_are_wanted():
    assert stages() == [Messages]
    assert stages("--raw") == []
    assert stages("-m", "record") == []
    wanted = stages("-m", "jsonl", "--redact", "--filter", "status == 1")
    assert wanted == [Messages, Filtered, Redacted]
    assert parses(given("-m", "har"))


@pytest.mark.parametrize("option", [["--filter", "pid == 1"], ["--redact"]])
def test_a_recording_is_neither_filtered_nor_redacted(option):
    with pytest.raises(UsageError, match="recording"):
        make_stages(given("-m", "record", *option), nowhere)


@pytest.mark.parametrize(
    ("mode", "kind", "beginning"),
    [
        ("text", FormatOutput, b""),
        ("jsonl", FormatOutput, b""),
        ("har", HarOutput, b'{"log"'),
        ("record", RecordOutput, b"ecapture recording"),
    ],
)
def test_every_mode_writes_a_whole_file(tmp_path, mode, kind, beginning):
    path = tmp_path / mode
    (output,) = make_outputs(given("-m", mode, "-w", str(path)), nowhere)
    assert isinstance(output, kind)
    assert path.stat().st_mode & 0o777 == 0o600
    output.opening(Metadata(0))
    output.records(b"")
    output.events([])
    output.close(Losses())
    assert path.read_bytes().startswith(beginning)


def test_unknown_modes_and_sizes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no mode"):
        make_outputs(given("-m", "nonsense", "-w", str(tmp_path / "x")), nowhere)
    with pytest.raises(UsageError, match="not a size"):
        truncation(given("--truncate", "lots"))
    assert truncation(given()) is None
    assert truncation(given("-t", "2k")) == 2048


def test_keys_have_a_file_of_their_own(tmp_path):
    assert key_log(given()) is None
    assert key_log(given("-m", "keylog")) == "ecapture_openssl_key.log"
    assert key_log(given("-k", "x")) == "x"
    with pytest.raises(UsageError, match="same place"):
        make_outputs(given("-k", "-"), nowhere)
    with pytest.raises(UsageError, match="only keys"):
        make_outputs(given("-m", "keylog", "-w", str(tmp_path / "x")), nowhere)


def test_colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert _colour("auto", terminal=True)
    assert not _colour("auto", terminal=False)
    assert _colour("always", terminal=False)
    assert not _colour("never", terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _colour("auto", terminal=True)


def kinds(*arguments):
    return [type(output) for output in make_outputs(given(*arguments), nowhere)]


def test_packets_wait_for_their_secrets_wherever_there_are_any(tmp_path):
    file = str(tmp_path / "x")
    assert stages("-m", "pcap") == [Held]
    assert stages("-m", "pcapng") == [Held]
    assert stages("--pcapfile", file) == [Messages, Held]
    assert stages("--pcapfile", file, "--filter", "pid == 1") == [Messages, Filtered, Held]
    assert stages("-m", "keylog", "--pcapfile", file) == [Held]


def test_packets_go_beside_something_else_or_alone(tmp_path):
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    assert kinds("-m", "pcap", "-w", one) == [PacketOutput]
    assert kinds("-m", "pcap", "--pcapfile", one) == [PacketOutput]
    assert kinds("-m", "pcap", "-w", one, "-k", two) == [FormatOutput, PacketOutput]
    assert kinds("--pcapfile", one) == [PacketOutput, FormatOutput]
    beside = kinds("-m", "jsonl", "-w", three, "--pcapfile", one, "-k", two)
    assert beside == [FormatOutput, PacketOutput, FormatOutput]
    assert kinds("-m", "keylog", "--pcapfile", one, "-k", two) == [FormatOutput, PacketOutput]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--pcapfile", "-"), "--pcapfile"),
        (("--pcapfile", "x", "-w", "x"), "--pcapfile"),
        (("--pcapfile", "x", "-k", "x", "-w", "y"), "--pcapfile"),
        (("-m", "pcap", "--pcapfile", "x", "-w", "y"), "--pcapfile"),
        (("-m", "pcap", "-w", "x", "-k", "x"), "-k"),
        (("-m", "pcap", "--pcapfile", "-", "-k", "-"), "-k"),
    ],
)
def test_two_things_have_two_places(words, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        make_outputs(given(*words), nowhere)
    assert refused.value.fields["option"] == option
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [("-m", "pcap", "--filter", "pid == 1"), ("-m", "pcap", "--redact"), ("--redact",)],
)
def test_packets_are_neither_filtered_by_messages_nor_redacted(words):
    with pytest.raises(UsageError, match="packets"):
        make_stages(given(*words, "--pcapfile", "x"), nowhere)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_keys_to_standard_output_are_alone_there(tmp_path, elsewhere):
    place = ["--eventaddr", str(tmp_path / "events")] if elsewhere else []
    asked = given("-k", "-", *place)
    if not elsewhere:
        with pytest.raises(UsageError, match="same place"):
            make_outputs(asked, nowhere)
        return
    for output in make_outputs(asked, nowhere):
        output.opening(Metadata(0))
        output.close(Losses())


@pytest.mark.parametrize("mode", ["text", "jsonl"])
def test_a_terminal_that_is_named_as_a_file_is_one(mode):
    ours, theirs = os.openpty()
    try:
        tty.setraw(theirs)
        (output,) = make_outputs(given("-m", mode, "--raw", "-w", os.ttyname(theirs)), nowhere)
        output.opening(Metadata(0))
        output.events([plaintext("\x1b[2Jé\u202e!".encode())])
        output.close(Losses())
        shown = os.read(ours, 4096)
        while b"!" not in shown:
            shown += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "é".encode() in shown
    assert not {0x1B, 0xE2}.intersection(shown)


def test_what_is_binary_is_not_for_terminals_however_named():
    ours, theirs = os.openpty()
    try:
        for mode in ("record", "pcap"):
            with pytest.raises(UsageError, match="terminal"):
                make_outputs(given("-m", mode, "-w", os.ttyname(theirs)), nowhere)
    finally:
        os.close(ours)
        os.close(theirs)
