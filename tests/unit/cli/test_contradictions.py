# SPDX-License-Identifier: Apache-2.0
"""No option is ignored silently: what makes no sense together is refused by name."""

import pytest

from ecapture.cli import contradictions
from ecapture.cli.capture import tls
from ecapture.errors import UsageError


def given(*words):
    return tls.make_context("tls", list(words)).params


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-m", "keylog", "--redact"], "--redact"),
        (["-m", "key", "--filter", "status == 200"], "--filter"),
        (["-m", "keylog", "--brief"], "--brief"),
        (["-m", "keylog", "--truncate", "9"], "--truncate"),
        (["-m", "keylog", "--eventaddr", "tcp://127.0.0.1:1"], "--eventaddr"),
        (["-m", "key", "--eventrotatesize", "9"], "--eventrotatesize"),
        (["-m", "key", "--eventrotatetime", "9"], "--eventrotatetime"),
        (["-m", "har", "--raw"], "--raw"),
        (["-m", "pcap", "--raw"], "--raw"),
        (["-m", "pcapng", "-t", "9"], "--truncate"),
        (["-w", "-", "--eventaddr", "-"], "--eventaddr"),
        (["-k", "-", "--eventaddr", "-"], "-k"),
        (["-m", "jsonl", "--hex"], "--hex"),
        (["-m", "har", "--brief"], "--brief"),
        (["--raw", "--brief"], "--brief"),
        (["--follow"], "--follow"),
        (["--follow", "--pid", "0"], "--follow"),
        (["--keep", "3", "-w", "x"], "--keep"),
        (["--filter", ""], "--filter"),
        (["-k", ""], "-k"),
        (["-w", ""], "-w"),
        (["-l", ""], "-l"),
    ],
)
def test_what_makes_no_sense_together(words, named):
    with pytest.raises(UsageError, match=f"^{named}: ") as caught:
        contradictions.check(given(*words))
    assert caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--raw", "--hex"],
        ["--brief", "--redact", "--filter", "status == 200"],
        ["-m", "jsonl", "--raw"],
        ["--follow", "--pid", "1"],
        ["--keep", "3", "--eventrotatetime", "5", "-w", "x"],
        ["-m", "keylog", "-k", "-"],
        ["-w", "/dev/null", "-k", "/dev/null"],
        ["-w", "-", "--eventaddr", "tcp://127.0.0.1:1"],
        ["-w", "x", "--eventaddr", "-"],
        ["-k", "-", "--eventaddr", "tcp://127.0.0.1:1"],
        ["-m", "keylog", "--pcapfile", "x", "--eventrotatesize", "9"],
        ["-m", "record", "--raw", "--truncate", "9"],
    ],
)
def test_what_does(words):
    contradictions.check(given(*words))


def test_a_command_has_descendants():
    contradictions.check(given("--follow"), ["true"])


@pytest.mark.parametrize("option", ["--eventaddr", "--pcapfile", "-k", "-l"])
@pytest.mark.parametrize("kind", ["spelling", "symlink", "link", "new"])
def test_two_outputs_have_two_files(tmp_path, monkeypatch, option, kind):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    if kind != "new":
        (tmp_path / "out").touch()
    if kind == "symlink":
        other.symlink_to("out")
    elif kind == "link":
        other.hardlink_to(tmp_path / "out")
    else:
        other = tmp_path / "." / "out"
    with pytest.raises(UsageError, match="is the file of -w") as caught:
        contradictions.check(given("-w", "out", option, str(other)))
    assert str(caught.value).startswith(f"{option}: ")
    contradictions.check(given("-w", "out", option, "third"))


def test_a_recording_is_not_written_over_while_it_is_read(tmp_path):
    recording = tmp_path / "r"
    recording.touch()
    with pytest.raises(UsageError, match="is the file of the recording"):
        contradictions.check(given("-w", str(recording)) | {"recording": str(recording)})


def test_a_filter_of_what_is_not_parsed():
    with pytest.raises(UsageError, match="so nothing has a host"):
        contradictions.check_filter(given("--raw"), frozenset({"pid", "status", "host"}))
    contradictions.check_filter(given("--raw"), frozenset({"pid", "duration"}))
    contradictions.check_filter(given(), frozenset({"status"}))
