# SPDX-License-Identifier: Apache-2.0
"""Blocks of a pcapng file: values to bytes, and back to where one block ends.

Strategy: a block is a function from values to bytes. It knows no file, no clock and no other block,
so a caller that streams, rotates or merges decides by itself which block stands where. All is
little-endian, as both machines we run on are; the section header says so to readers elsewhere.

Source: IETF draft-ietf-opsawg-pcapng, "PCAP Next Generation (pcapng) Capture File Format"; section
numbers below are those of revision 02. Link types: https://www.tcpdump.org/linktypes.html.

Invariants: every block is a multiple of four bytes long and carries its length at both ends; time
is in nanoseconds since 1970 (``if_tsresol`` 9), everywhere; a text that is too long for an option
is cut at a character, never in one; a value that does not fit its field raises ValueError rather
than being written as another one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import Final

Option = tuple[int, bytes]
"""An option: its code, and its value without padding."""


class Block(IntEnum):
    """Types of blocks (section 11.1)."""

    SECTION = 0x0A0D0D0A
    INTERFACE = 1
    STATISTICS = 5
    PACKET = 6  # "enhanced"
    SECRETS = 10
    CUSTOM = 0x0BAD
    CUSTOM_NOT_COPIED = 0x40000BAD


class LinkType(IntEnum):
    """What the first byte of a packet is the first byte of."""

    NULL = 0
    ETHERNET = 1
    PPP = 9
    RAW = 101  # an IPv4 or an IPv6 header
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    NETLINK = 253
    LINUX_SLL2 = 276


class PacketFlag(IntFlag):
    """``epb_flags`` (section 4.3.1): direction and how it was addressed."""

    INBOUND = 1
    OUTBOUND = 2
    UNICAST = 1 << 2
    MULTICAST = 2 << 2
    BROADCAST = 3 << 2
    PROMISCUOUS = 4 << 2


class Code(IntEnum):
    """Options that we write. Below 32768 and above 1 the meaning depends on the block."""

    END = 0
    COMMENT = 1
    CUSTOM_TEXT = 2988
    CUSTOM_BYTES = 2989
    SECTION_HARDWARE = 2
    SECTION_SYSTEM = 3
    SECTION_APPLICATION = 4
    INTERFACE_NAME = 2
    INTERFACE_DESCRIPTION = 3
    INTERFACE_RESOLUTION = 9
    INTERFACE_FILTER = 11
    INTERFACE_SYSTEM = 12
    PACKET_FLAGS = 2
    PACKET_DROPPED = 4
    STATISTICS_START = 2
    STATISTICS_END = 3
    STATISTICS_RECEIVED = 4
    STATISTICS_DROPPED = 5
    STATISTICS_ACCEPTED = 6
    STATISTICS_SYSTEM_DROPPED = 7
    STATISTICS_DELIVERED = 8


TLS_KEY_LOG: Final = 0x544C534B
"""Type of the secrets in a secrets block: lines of a TLS key log (section 4.7)."""

ENTERPRISE: Final = 32473
"""Owner of our custom options: the number that RFC 5612 sets aside for examples.

Nobody has asked IANA for one of our own, so ``PROCESS_MAGIC`` tells our options from others'.
"""

PROCESS_MAGIC: Final = b"ecap"
_PROCESS: Final = struct.Struct("<4sII16s")
PROCESS_OPTION_LENGTH: Final = 4 + _PROCESS.size
"""Length of the value of a process option, with the enterprise number."""

MAXIMUM_OPTION: Final = 0xFFFF
_HEAD: Final = struct.Struct("<II")
_TAIL: Final = struct.Struct("<I")
_OPTION: Final = struct.Struct("<HH")
_SECTION: Final = struct.Struct("<IHHq")
_INTERFACE: Final = struct.Struct("<HHI")
_PACKET: Final = struct.Struct("<IIIII")
_STATISTICS: Final = struct.Struct("<III")
_SECRETS: Final = struct.Struct("<II")
_BYTE_ORDER: Final = 0x1A2B3C4D
_SMALLEST: Final = 12
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


def section_header(
    *, hardware: str = "", system: str = "", application: str = "", comment: str = ""
) -> bytes:
    """The block that every file begins with (4.1). The section's length is left open (-1)."""
    options = _texts(
        (Code.COMMENT, comment),
        (Code.SECTION_HARDWARE, hardware),
        (Code.SECTION_SYSTEM, system),
        (Code.SECTION_APPLICATION, application),
    )
    return _block(Block.SECTION, _SECTION.pack(_BYTE_ORDER, 1, 0, -1), options)


def interface_description(
    link_type: int,
    *,
    name: str = "",
    snap_length: int = 0,
    description: str = "",
    filter_: str = "",
    system: str = "",
    comment: str = "",
) -> bytes:
    """One interface (4.2). The first of a section has number 0, the next 1, and so on.

    ``snap_length`` is in bytes, 0 for no limit. ``filter_`` is a libpcap expression.
    """
    options = _texts(
        (Code.COMMENT, comment),
        (Code.INTERFACE_NAME, name),
        (Code.INTERFACE_DESCRIPTION, description),
    )
    options.append((Code.INTERFACE_RESOLUTION, b"\x09"))
    if filter_:
        options.append((Code.INTERFACE_FILTER, b"\0" + _text(filter_, MAXIMUM_OPTION - 1)))
    options += _texts((Code.INTERFACE_SYSTEM, system))
    return _block(Block.INTERFACE, _fields(_INTERFACE, link_type, 0, snap_length), options)


def enhanced_packet(
    interface: int,
    time_ns: int,
    frame: bytes,
    *,
    original_length: int | None = None,
    flags: int = 0,
    comment: str = "",
    options: Sequence[Option] = (),
) -> bytes:
    """One packet (4.3). ``original_length`` is that on the link, if ``frame`` is less of it."""
    on_link = len(frame) if original_length is None else original_length
    if on_link < len(frame):
        raise ValueError(f"{len(frame)} bytes of a packet of {on_link}")
    high, low = _time(time_ns)
    some = _texts((Code.COMMENT, comment))
    if flags:
        some.append((Code.PACKET_FLAGS, _fields(_TAIL, flags)))
    some += options
    fields = _fields(_PACKET, interface, high, low, len(frame), on_link)
    return _block(Block.PACKET, fields + _padded(frame), some)


def interface_statistics(
    interface: int,
    time_ns: int,
    *,
    start_ns: int | None = None,
    end_ns: int | None = None,
    received: int | None = None,
    dropped: int | None = None,
    accepted: int | None = None,
    system_dropped: int | None = None,
    delivered: int | None = None,
    comment: str = "",
) -> bytes:
    """Counts of one interface at ``time_ns`` (4.6); what is None is not known and left out.

    ``received`` packets arrived, ``dropped`` were lost for want of room, ``accepted`` passed the
    filter, ``system_dropped`` were lost by the system after that, ``delivered`` came to us.
    """
    options = _texts((Code.COMMENT, comment))
    for code, moment in ((Code.STATISTICS_START, start_ns), (Code.STATISTICS_END, end_ns)):
        if moment is not None:
            options.append((code, _HEAD.pack(*_time(moment))))
    for code, count in (
        (Code.STATISTICS_RECEIVED, received),
        (Code.STATISTICS_DROPPED, dropped),
        (Code.STATISTICS_ACCEPTED, accepted),
        (Code.STATISTICS_SYSTEM_DROPPED, system_dropped),
        (Code.STATISTICS_DELIVERED, delivered),
    ):
        if count is not None:
            options.append((code, _count(count)))
    return _block(Block.STATISTICS, _fields(_STATISTICS, interface, *_time(time_ns)), options)


def decryption_secrets(lines: bytes) -> bytes:
    """Lines of a TLS key log (4.7). Readers use them for the packets that follow."""
    fields = _fields(_SECRETS, TLS_KEY_LOG, len(lines))
    return _block(Block.SECRETS, fields + _padded(lines), [])


def custom(content: bytes, *, enterprise: int = ENTERPRISE, copied: bool = True) -> bytes:
    """A block of our own (4.8). ``copied``: tools that rewrite the file shall keep it.

    Wireshark lists such a block among the packets, so none is written into captures.
    """
    kind = Block.CUSTOM if copied else Block.CUSTOM_NOT_COPIED
    return _block(kind, _fields(_TAIL, enterprise) + _padded(content), [])


def process_option(pid: int, command: str | bytes, *, uid: int = 0xFFFFFFFF) -> Option:
    """The process that a packet belongs to, for tools: a custom option (3.5.1) of fixed length.

    The value is, little-endian: the enterprise number (u32), "ecap", pid (u32), uid (u32,
    0xffffffff if not known), command name (16 bytes, filled with zeros).
    """
    name = command.encode() if isinstance(command, str) else command
    return Code.CUSTOM_BYTES, _TAIL.pack(ENTERPRISE) + _PROCESS.pack(
        PROCESS_MAGIC, pid, uid, name[:15]
    )


def process_comment(pid: int, command: str) -> str:
    """The same for people: what Wireshark shows as the packet's comment."""
    return f"pid {pid} ({command})" if command else f"pid {pid}"


def process_of(options: Sequence[Option]) -> tuple[int, int, str] | None:
    """(pid, uid, command) of a packet that carries a process option of ours, else None."""
    for code, value in options:
        if code != Code.CUSTOM_BYTES or len(value) != PROCESS_OPTION_LENGTH:
            continue
        magic, pid, uid, name = _PROCESS.unpack_from(value, 4)
        if _TAIL.unpack_from(value)[0] == ENTERPRISE and magic == PROCESS_MAGIC:
            return pid, uid, name.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return None


# --- reading ---


def blocks(content: bytes, at: int = 0) -> Iterator[tuple[int, int, int]]:
    """(offset, type, length) of the whole blocks of ``content``, from the block at ``at``.

    Ends before a block that is not complete. Raises ValueError where no block can be.
    """
    end = len(content)
    while at + _SMALLEST <= end:
        kind, length = _HEAD.unpack_from(content, at)
        if length < _SMALLEST or length % 4:
            raise ValueError(f"no block at byte {at}: its length would be {length}")
        if at + length > end:
            return
        if _TAIL.unpack_from(content, at + length - 4)[0] != length:
            raise ValueError(f"the block at byte {at} does not end as it begins")
        yield at, kind, length
        at += length


def options_of(content: bytes, at: int, end: int) -> list[Option]:
    """The options between two offsets, in order. Raises ValueError if one is cut off."""
    found = []
    while at + 4 <= end:
        code, length = _OPTION.unpack_from(content, at)
        at += 4
        if code == Code.END:
            break
        if at + length > end:
            raise ValueError(f"the option at byte {at - 4} is longer than its block")
        found.append((code, content[at : at + length]))
        at += (length + 3) & ~3
    return found


# --- the parts of blocks ---


def _block(kind: int, body: bytes, options: Sequence[Option]) -> bytes:
    packed = b"".join(
        _fields(_OPTION, code, len(value)) + _padded(value) for code, value in options
    )
    if packed:
        packed += bytes(4)
    length = _SMALLEST + len(body) + len(packed)
    return _fields(_HEAD, kind, length) + body + packed + _TAIL.pack(length)


def _fields(layout: struct.Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ValueError(f"{values} do not fit their fields: {error}") from None


def _padded(value: bytes) -> bytes:
    return value + _PADDING[len(value) & 3]


def _texts(*named: tuple[int, str]) -> list[Option]:
    return [(code, _text(text)) for code, text in named if text]


def _text(text: str, limit: int = MAXIMUM_OPTION) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore").encode()


def _time(time_ns: int) -> tuple[int, int]:
    if not 0 <= time_ns < 1 << 64:
        raise ValueError(f"{time_ns} is no time in nanoseconds since 1970")
    return time_ns >> 32, time_ns & 0xFFFFFFFF


def _count(count: int) -> bytes:
    if not 0 <= count < 1 << 64:
        raise ValueError(f"{count} is no count")
    return count.to_bytes(8, "little")
