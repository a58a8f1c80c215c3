# SPDX-License-Identifier: Apache-2.0
"""Events are frozen values with a JSON form that tells their kind."""

import msgspec
import pytest
from records import CONVERSATION, ended, exited, plaintext

from ecapture.events import (
    Connection,
    ConversationEnd,
    Gap,
    Losses,
    Plaintext,
    ProcessExit,
    Summary,
)

LINK = Connection("ipv6", "::1", 40000, "::1", 443, "descriptor")
EVENTS = [
    plaintext(b"\0\xff", connection=LINK, no_connection=""),
    Gap(1, 2, "x", "read", CONVERSATION, None, 10, 20),
    ended(),
    exited(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_survive_json(event):
    text = msgspec.json.encode(event)
    assert msgspec.json.decode(text, type=Plaintext | Gap | ConversationEnd | ProcessExit) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_frozen_and_outside_garbage_collection(event):
    with pytest.raises(AttributeError):
        event.pid = 1
    assert type(event).__struct_config__.gc is False


def test_the_summary_is_words_that_scripts_can_split():
    text = str(Summary(events=3, bytes=10, flows=1, lost=2, truncated=1))
    assert text.startswith("summary: events=3 bytes=10 flows=1 lost=2 truncated=1 ")
    words = dict(word.split("=") for word in text.removeprefix("summary: ").split())
    assert all(value.isdecimal() for value in words.values())


def test_losses_begin_at_nothing():
    assert set(msgspec.to_builtins(Losses()).values()) == {0}
