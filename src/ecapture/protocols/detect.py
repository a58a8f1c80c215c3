# SPDX-License-Identifier: Apache-2.0
"""Which protocol a connection speaks, from its first octets or from where the capture joined it.

``SNIFFERS`` is an ordered tuple: each looks at one direction and answers yes, no, or that it needs
more. ``detect`` asks them in that order, both directions each; the first yes wins. It answers
``NEED_DATA`` only while some sniffer says that what is there may yet become its protocol, and
never after ``LOOK_AHEAD`` octets of one direction, so an unknown protocol is mostly known for one
at its first octets. A caller that cannot wait may take ``NEED_DATA`` for ``UNKNOWN`` at any time.

A capture that joins in the middle of content sees no beginning. For those connections there is
``resume``: one cheap look at each piece, since programs write whole heads and frames.

WebSocket is not detected: it begins with an upgrade, which its own parser is told by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum
from typing import Final, Literal

from .http1_seek import Seeker
from .http2_frames import PREFACE, begins_with_frames

LOOK_AHEAD: Final = 20_000
"""After this many octets of a direction a protocol is known or unknown for good. Enough for a DATA
frame of the usual maximum size (16 KiB) and the header of the next frame."""

_LINE: Final = 8192
"""The longest request line that is waited for."""


class Protocol(StrEnum):
    """What a connection may speak."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    UNKNOWN = "unknown"


class Answer(Enum):
    """What a sniffer may say; ``NEED_DATA`` is what ``detect`` may say as well."""

    YES = "yes"
    NO = "no"
    NEED_DATA = "need data"


NEED_DATA: Final = Answer.NEED_DATA

_REGISTERED: Final = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|QUERY)"
    rb" (?:/|\*|https?://|[^ \r\n]{1,300} HTTP/1)"
)
"""What begins a request line, before it is whole."""
_REQUEST: Final = re.compile(rb"[A-Z][A-Z0-9_-]{1,31} [^ \r\n]+ HTTP/1\.[01]\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2}[ \r\n]")
_BEGUN: Final = re.compile(
    rb"(?:[A-Z][A-Z0-9_-]{0,31}"
    rb"(?: [^ \r\n]*"
    rb"(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01]\r?)?)?)?)?)?)?)?)?)?)?"
    rb"|HTTP/(?:1(?:\.(?:[01](?: (?:[1-5][0-9]{0,2})?)?)?)?)?)\Z"
)
"""A start line that may yet become whole. Methods outside the registry are in capitals.

No two repetitions meet that take the same octets: what is no start line costs one pass."""


def _begins_http1(start: bytes) -> bool:
    if _REQUEST.match(start) or _STATUS.match(start):
        return True
    if not _REGISTERED.match(start):
        return False
    # A line of a log may begin like that, and HTTP/0.9 is nothing but such a line.
    end = start.find(b"\n", 0, _LINE)
    return end < 0 or b" HTTP/1." in start[:end].replace(b"\t", b" ")


def sniff_http1(start: bytes) -> Answer:
    """Tell whether an HTTP/1 request or response begins here."""
    if _begins_http1(start):
        return Answer.YES
    if len(start) < _LINE and _BEGUN.match(start):
        return NEED_DATA
    return Answer.NO


def sniff_http2(start: bytes) -> Answer:
    """Tell whether an HTTP/2 connection begins here, or goes on with a frame."""
    if PREFACE.startswith(start[: len(PREFACE)]):
        return Answer.YES if len(start) >= len(PREFACE) else NEED_DATA
    # Frames of 64 KiB and more are not looked for, so the first octet is 0.
    begins = begins_with_frames(start) if start[:1] == b"\0" else False
    if begins is None:
        return NEED_DATA
    return Answer.YES if begins else Answer.NO


def sniff_http1_later(start: bytes) -> Answer:
    """Tell whether an HTTP/1 message begins somewhere in this, behind the rest of another."""
    found = any(Seeker(request=request).feed(start) is not None for request in (True, False))
    return Answer.YES if found else Answer.NO


SNIFFERS: Final[tuple[tuple[Protocol, Callable[[bytes], Answer]], ...]] = (
    (Protocol.HTTP2, sniff_http2),
    (Protocol.HTTP1, sniff_http1),
    (Protocol.HTTP1, sniff_http1_later),
)
"""In the order in which they are asked. The preface would pass for a request of HTTP/1."""


def detect(directions: Mapping[int, bytes]) -> Protocol | Literal[Answer.NEED_DATA]:
    """Return what is spoken, given the first captured octets of either direction.

    The mapping may lack a direction. The caller asks again with more after ``NEED_DATA``.
    """
    starts = [start for start in directions.values() if start]
    if not starts:
        return NEED_DATA
    needed = False
    for protocol, sniffer in SNIFFERS:
        for start in starts:
            answer = sniffer(start)
            if answer is Answer.YES:
                return protocol
            needed = needed or (answer is NEED_DATA and len(start) < LOOK_AHEAD)
    return NEED_DATA if needed else Protocol.UNKNOWN


def resume(piece: bytes) -> Protocol | None:
    """Return the protocol of a message that beyond doubt begins with ``piece``, or None.

    For pieces of a connection whose protocol is unknown; nothing is remembered between calls.
    """
    first = piece[:1]
    if first == b"\0":  # frames of 64 KiB and more are not looked for, here either
        return Protocol.HTTP2 if begins_with_frames(piece) else None
    # Methods, "HTTP" and the preface begin with a capital; most of what is unknown does not.
    if not b"A" <= first <= b"Z":
        return None
    if _begins_http1(piece):
        return Protocol.HTTP1
    return Protocol.HTTP2 if piece.startswith(PREFACE) else None
