# SPDX-License-Identifier: Apache-2.0
"""Records of shells become events, or are counted as malformed."""

import random

import pytest
from shell_records import (
    begin_record,
    begun,
    end_of_command_record,
    line,
    over,
    text_record,
)

from ecapture._wire import SHELL_BEGIN, SHELL_END, SHELL_TEXT, Encoding, Ending, Flag, Form, Origin
from ecapture.kernel.decode import Decoder


def decoded(*records, offset=0):
    decoder = Decoder(offset)
    events = decoder.decode(b"".join(records))
    assert decoder.malformed == 0
    return events


def test_the_three_kinds():
    records = begin_record(), text_record(), end_of_command_record()
    assert decoded(*records) == [begun(), line(), over()]


def test_times_are_of_the_wall_clock():
    first, _, last = decoded(begin_record(), text_record(), end_of_command_record(), offset=5)
    assert (first.time_ns, last.time_ns, last.started_ns) == (1_005, 3_005, 2_005)
    (unknown,) = decoded(end_of_command_record(started_ns=0), offset=5)
    assert unknown.started_ns == 0


def test_directory_and_place():
    place = b"/srv/run.sh"
    (event,) = decoded(
        begin_record(place + b"c\0b b\0\xc3\xa9\0", place_length=len(place), origin=Origin.SOURCED)
    )
    assert (event.place, event.directory, event.origin) == ("/srv/run.sh", "/é/b b/c", "sourced")
    assert decoded(begin_record(b""))[0].directory == "/"
    assert decoded(begin_record(b"", directory=0))[0].directory is None


@pytest.mark.parametrize(
    ("kept", "name"), [(b"pts12", "pts/12"), (b"tty1", "tty1"), (b"", ""), (b"ptsx", "ptsx")]
)
def test_terminals(kept, name):
    assert decoded(begin_record(terminal=kept))[0].terminal == name


def test_nobody_logged_in():
    assert decoded(begin_record(login_uid=0xFFFFFFFF))[0].login_uid is None
    assert decoded(begin_record(login_uid=0))[0].login_uid == 0


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"flags": 0}, {"last": False}),
        ({"flags": Flag.LAST | Flag.FAULT}, {"missing": "unreadable"}),
        ({"flags": Flag.LAST | Flag.TRUNCATED}, {"missing": "truncated"}),
        ({"form": Form.EXPANDED}, {"form": "expanded"}),
        ({"form": Form.REFUSED}, {"form": "refused"}),
        ({"form": Form.WHOLE}, {"form": "whole"}),
        ({"encoding": Encoding.META}, {"encoding": "meta"}),
        ({"encoding": Encoding.WORDCODE}, {"encoding": "wordcode"}),
        ({"offset": 16383, "line": 3}, {"offset": 16383, "line": 3}),
    ],
)
def test_texts(fields, wanted):
    assert decoded(text_record(**fields)) == [line(**wanted)]


@pytest.mark.parametrize("ending", Ending)
def test_endings(ending):
    (event,) = decoded(end_of_command_record(ending=ending, status=-1))
    assert event.ending.replace(" ", "_") == ending.name.lower()
    assert event.status == -1


def test_without_a_status():
    assert decoded(end_of_command_record(has_status=0))[0].status is None


@pytest.mark.parametrize(
    "record",
    [
        begin_record(place_length=5),
        begin_record(origin=9),
        begin_record()[:48].replace(b"\0", b"\0"),
        text_record(form=9),
        text_record(encoding=9),
        end_of_command_record(ending=99),
        end_of_command_record(size=SHELL_END.size - 4),
        text_record(size=SHELL_TEXT.size - 8),
        begin_record(size=SHELL_BEGIN.size - 8),
    ],
)
def test_what_is_malformed_is_counted(record):
    decoder = Decoder(0)
    decoder.decode(record)
    assert decoder.malformed >= 1


def test_no_bytes_end_decoding():
    chosen = random.Random(3)
    whole = bytearray(begin_record() + text_record() + end_of_command_record())
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(chosen.randrange(1, 6)):
            broken[chosen.randrange(len(broken))] = chosen.randrange(256)
        Decoder(0).decode(bytes(broken[: chosen.randrange(len(broken) + 1)]))
