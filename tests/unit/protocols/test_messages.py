# SPDX-License-Identifier: Apache-2.0
import msgspec
import pytest

from ecapture.protocols import messages
from ecapture.protocols.messages import Direction, Head, Message, MessageComplete


def test_fields_are_found_in_any_case_and_kept_in_theirs():
    head = Head(Direction.TO_SERVER, 1, fields=(("HoSt", "a"), ("X", "1"), ("x", "2")))
    assert head.get("host") == "a"
    assert head.get("x") == "1"
    assert head.get("y", "none") == "none"
    assert head.fields[0][0] == "HoSt"


@pytest.mark.parametrize(
    ("status", "expected"), [(100, True), (103, True), (101, False), (200, False)]
)
def test_informational(status, expected):
    assert Head(Direction.TO_CLIENT, 1, kind="response", status=status).informational is expected


def test_truncated_says_whether_content_was_left_out():
    assert not MessageComplete(Direction.TO_CLIENT, 1, decoded_size=3, kept=3).truncated
    assert MessageComplete(Direction.TO_CLIENT, 1, decoded_size=4, kept=3).truncated


@pytest.mark.parametrize("kind", Message.__subclasses__())
def test_every_message_survives_json_with_its_kind(kind):
    message = kind(Direction.TO_CLIENT, 5, 7, 9)
    encoded = msgspec.json.encode(message)
    union = messages.Head | messages.Body | messages.MessageComplete | kind
    assert msgspec.json.decode(encoded, type=union) == message
    with pytest.raises(AttributeError):
        message.time_ns = 1
