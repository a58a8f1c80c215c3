# SPDX-License-Identifier: Apache-2.0
"""The four trials that every parser has to stand: whole, byte by byte, with a tail, in the middle.

A parser is given as a function that reads pieces and returns messages, ``Read``. What it makes of
the whole stream in one piece is the measure for the other three; that this is right is for the
test around to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ecapture.protocols.messages import Body, Message, Note

Read = Callable[[Sequence[bytes], bool], list[Message]]
"""Reads pieces of one stream; the flag says that the beginning may be missing."""


def plain(messages: Sequence[Message], *, anonymous: bool = False) -> list[Message]:
    """Return messages without what depends on the pieces: times, and how content is cut.

    With ``anonymous`` also without exchange numbers, which depend on how much came before.
    """
    out: list[Message] = []
    for message in messages:
        number = 0 if anonymous else message.exchange
        message = msgspec.structs.replace(message, time_ns=0, exchange=number)  # noqa: PLW2901
        last = out[-1] if out else None
        if (
            isinstance(message, Body)
            and isinstance(last, Body)
            and (last.direction, last.stream, last.exchange)
            == (message.direction, message.stream, message.exchange)
        ):
            out[-1] = msgspec.structs.replace(last, data=last.data + message.data)
        else:
            out.append(message)
    return out


def four_trials(
    read: Read, parts: Sequence[bytes], *, tail: bytes = b"", cuts: Sequence[int] | None = None
) -> list[Message]:
    """Put ``read`` through the trials with a stream of whole ``parts``; return what it read.

    ``tail`` is what the second part of the third trial appends. ``cuts`` are the offsets at which
    the fourth begins; every offset within the first part unless given.
    """
    stream = b"".join(parts)
    whole = plain(read([stream], False))

    by_byte = plain(read([stream[i : i + 1] for i in range(len(stream))], False))
    assert by_byte == whole, "byte by byte"

    with_tail = plain(read([stream + tail], False))
    assert with_tail[: len(whole)] == whole, "with a tail"
    assert plain(read([stream, tail], False))[: len(whole)] == whole, "with a tail of its own"

    later = plain(read([b"".join(parts[1:])], False), anonymous=True)
    assert later, "there must be something to find again"
    for cut in cuts if cuts is not None else range(1, len(parts[0])):
        late = [
            m for m in plain(read([stream[cut:]], True), anonymous=True) if not isinstance(m, Note)
        ]
        assert late[-len(later) :] == later, f"from the middle, at {cut}"
    return whole
