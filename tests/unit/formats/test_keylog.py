# SPDX-License-Identifier: Apache-2.0
"""Key logs: exact lines, each once, in order."""

import pytest

from ecapture.events import Secret
from ecapture.formats.keylog import LABELS, KeyLogFormat

RANDOM, KEY = bytes(range(32)), bytes(range(100, 148))


def secret(label="CLIENT_RANDOM", random=RANDOM, key=KEY, **fields):
    return Secret(1, 2, 3, 4, "curl", (2, 0x7000, 5), label, random, key, **fields)


def written(format_, *events):
    return b"".join(format_.encode(list(events))).decode()


def test_a_line_is_as_the_format_says():
    assert written(KeyLogFormat(), secret()) == (
        "CLIENT_RANDOM 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        " 6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b"
        "8c8d8e8f90919293\n"
    )


def test_lines_keep_their_order_over_batches():
    format_ = KeyLogFormat()
    labels = sorted(LABELS, reverse=True)
    text = written(format_, *map(secret, labels[:4])) + written(format_, *map(secret, labels[4:]))
    assert [line.split()[0] for line in text.splitlines()] == labels


def test_the_same_secret_is_written_once():
    format_ = KeyLogFormat()
    assert len(written(format_, secret(), secret()).splitlines()) == 1
    assert written(format_, secret(label="EXPORTER_SECRET"), secret()).splitlines()[1:] == []
    assert written(format_, secret(random=bytes(32)))
    assert written(format_, secret(key=bytes(48)))


def test_what_is_remembered_is_bounded():
    format_ = KeyLogFormat(remembered=2)
    many = [secret(random=bytes([n]) * 32) for n in range(1, 5)]
    assert len(written(format_, *many).splitlines()) == 4
    assert written(format_, many[3], many[2]) == "", "the latest are known"
    assert written(format_, many[0]), "the oldest are forgotten"


@pytest.mark.parametrize(
    "event",
    [
        secret(random=b""),
        secret(key=b"", missing="unreadable"),
        secret(label="", missing="unlabelled"),
        secret(label="NO_SUCH_SECRET"),
        secret(label="CLIENT_RANDOM\nX"),
    ],
)
def test_what_has_no_line(event):
    assert written(KeyLogFormat(), event) == ""
