# SPDX-License-Identifier: Apache-2.0
"""Messages of netlink: what is whole is read, what is not ends the reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecapture.kernel.netlink import DUMP, Message, Netlink, attribute, attributes, messages, text


def message(kind, content, flags=0, length=None):
    size = 16 + len(content) if length is None else length
    head = size.to_bytes(4, "little") + kind.to_bytes(2, "little") + flags.to_bytes(2, "little")
    return head + bytes(8) + content + bytes(-len(content) % 4)


def test_messages_stand_one_behind_the_other():
    batch = message(16, b"abc", 2) + message(17, b"")
    assert list(messages(batch)) == [Message(16, 2, b"abc"), Message(17, 0, b"")]


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_an_impossible_length_ends_the_reading(length):
    assert list(messages(message(16, b"abcd") + message(17, b"abcd", length=length))) == [
        Message(16, 0, b"abcd")
    ]


@given(st.dictionaries(st.integers(1, 100), st.binary(max_size=30), max_size=5))
def test_attributes_come_back_as_they_were_made(wanted):
    assert attributes(b"".join(attribute(kind, value) for kind, value in wanted.items())) == wanted


@given(st.binary(max_size=200))
def test_nothing_that_is_received_raises(content):
    list(messages(content))
    attributes(content)


def test_a_flag_of_nested_attributes_is_no_part_of_their_type():
    assert attributes(b"\x06\0\x02\x80ab\0\0") == {2: b"ab"}


def test_a_text_ends_at_its_zero():
    assert text(b"lo\0rest") == "lo"


def test_the_kernel_lists_interfaces_and_refuses_what_cannot_be():
    with Netlink() as netlink:
        found = [attributes(one.content[16:])[3] for one in netlink.ask(18, DUMP, bytes(16))]
        assert b"lo\0" in found
        with pytest.raises(OSError, match=r"No such device|Operation not permitted"):
            netlink.ask(17, 0, bytes(4) + (0x7FFFFFF).to_bytes(4, "little") + bytes(8))
        with pytest.raises(BlockingIOError):
            netlink.notices()
