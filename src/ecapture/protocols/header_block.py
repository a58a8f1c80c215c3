# SPDX-License-Identifier: Apache-2.0
"""HPACK header blocks for somebody who only listens (RFC 7541).

The ``hpack`` library gives the static table and the Huffman code. Its ``Decoder`` is not used: it
belongs to an endpoint, so at the first index that it does not know it raises, which loses the
rest of the block and every later insertion, and a listener that joined late would never recover;
it also takes 35 microseconds for the header of a typical response, which is more than one event
may cost here. What replaces it rests on one property of the dynamic table:

1. Indexes count from the newest entry (2.3.3), so an entry is found as long as everything that
   was inserted after it was seen. What lies behind the oldest known entry is *unknown*: its field
   is shown as ``?`` in its place, and later insertions become known, so the table refills.
2. An encoder never refers to what its table has evicted. Keeping entries for longer than the
   encoder does is therefore harmless, and a table of unknown size is kept at ``table_limit``.
   The size that counts is the one the encoder announces in the blocks (4.2), never SETTINGS.
3. A block that was lost or broken off may have held any number of insertions. ``forget`` then
   drops the table, as if the capture began there.
4. Text is latin-1: every octet stays what it was.

Bounds: the table by ``table_limit``, the fields of one block by ``list_limit`` (counted as in 4.1)
and ``count_limit``; behind either, a block is read on for its insertions and nothing is kept.
Time is linear in the length of the block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

UNKNOWN: Final = "?"
"""What stands for a name or value which only an unseen part of the capture could tell."""

_ENTRY_OVERHEAD: Final = 32  # RFC 7541, 4.1
_DEFAULT_TABLE: Final = 4096  # the initial SETTINGS_HEADER_TABLE_SIZE, RFC 9113, 6.5.2
_DYNAMIC: Final = HeaderTable.STATIC_TABLE_LENGTH + 1
_STATIC: Final[tuple[tuple[str, str], ...]] = (
    ("", ""),  # indexes begin at 1
    *((name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE),
)
_INTEGER_OCTETS: Final = 5
"""Continuation octets of an integer that are believed; more than that is an attack (7.4)."""
_CACHED: Final = 128
"""Huffman strings up to this length are remembered; most occur again in the next message."""


class HeaderBlock(NamedTuple):
    """One header block, decoded as far as it could be."""

    fields: list[tuple[str, str]]
    unknown: int = 0
    """How many of the fields lack their name, or both name and value."""
    limited: bool = False
    """Whether fields were left out because of a limit."""
    problem: str = ""
    """What broke the rules; the fields before it are there."""


class _BrokenError(Exception):
    """The block cannot be read on. Never leaves this module."""


@lru_cache(maxsize=2048)
def _remembered(code: bytes) -> str:
    return decode_huffman(code).decode("latin-1")


def _huffman(code: bytes) -> str:
    if len(code) <= _CACHED:
        return _remembered(code)
    return decode_huffman(code).decode("latin-1")


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Continue an integer whose prefix bits are all ones; return it and where it ends (5.1)."""
    value = prefix
    for count in range(_INTEGER_OCTETS):
        octet = block[at + count]
        value += (octet & 0x7F) << (7 * count)
        if octet < 0x80:
            return value, at + count + 1
    raise _BrokenError("an integer is too long")


class HeaderDecoder:
    """The header blocks of one direction of a connection, in their order."""

    __slots__ = (
        "_complete",
        "_count_limit",
        "_entries",
        "_limit",
        "_list_limit",
        "_size",
        "_table_limit",
    )

    def __init__(
        self,
        *,
        complete: bool = True,
        table_limit: int = 1 << 16,
        list_limit: int = 1 << 18,
        count_limit: int = 1000,
    ) -> None:
        """Begin with an empty table, or (not ``complete``) with one that nobody saw."""
        self._table_limit = table_limit
        self._list_limit = list_limit
        self._count_limit = count_limit
        self._entries: list[tuple[str, str]] = []  # the newest last
        self._size = 0
        self._limit = min(_DEFAULT_TABLE, table_limit) if complete else table_limit
        self._complete = complete

    @property
    def complete(self) -> bool:
        """Whether every insertion into the table was seen, and all of the table is kept."""
        return self._complete

    @property
    def table_size(self) -> int:
        """The size of the known entries, counted as in RFC 7541, 4.1."""
        return self._size

    def forget(self) -> None:
        """Give up the table: a block was missed."""
        self._entries.clear()
        self._size = 0
        self._limit = self._table_limit
        self._complete = False

    def decode(self, block: bytes) -> HeaderBlock:
        """Decode one whole block. Never raises; a broken block costs the table."""
        fields: list[tuple[str, str]] = []
        try:
            unknown, limited, problem = self._read(block, fields)
        except IndexError:
            self.forget()
            return HeaderBlock(fields, problem="the header block ends within a field")
        except (HPACKError, _BrokenError) as error:
            self.forget()
            return HeaderBlock(fields, problem=f"header block: {error}")
        return HeaderBlock(fields, unknown, limited, problem)

    def _read(self, block: bytes, fields: list[tuple[str, str]]) -> tuple[int, bool, str]:
        at = 0
        end = len(block)
        room = self._list_limit
        unknown = 0
        limited = False
        problem = ""
        while at < end:
            octet = block[at]
            at += 1
            if octet & 0x80:  # an indexed field, 6.1
                index = octet & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, index)
                field = self._entry(index)
            elif octet & 0xE0 == 0x20:  # a new table size, 6.3
                index = octet & 0x1F
                if index == 0x1F:
                    index, at = _integer(block, at, index)
                self._resize(index)
                continue
            else:
                field, index, at = self._literal(block, at, octet)
            if field[0] == UNKNOWN:  # no legal name (RFC 9110, 5.1), so nobody sent it
                unknown += 1
                if self._complete:
                    problem = f"header block: index {index} is outside the table"
            room -= len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            if room < 0 or len(fields) >= self._count_limit:
                limited = True
            else:
                fields.append(field)
        return unknown, limited, problem

    def _literal(self, block: bytes, at: int, octet: int) -> tuple[tuple[str, str], int, int]:
        # 6.2: with (01), without (0000) or never (0001) to be inserted.
        mask = 0x3F if octet & 0x40 else 0x0F
        index = octet & mask
        if index:
            if index == mask:
                index, at = _integer(block, at, mask)
            name = self._entry(index)[0]
        else:
            name, at = self._string(block, at)
        value, at = self._string(block, at)
        field = (name, value)
        if octet & 0x40:
            self._insert(field)
        return field, index, at

    def _entry(self, index: int) -> tuple[str, str]:
        if index < _DYNAMIC:
            if not index:
                raise _BrokenError("index 0 is used")
            return _STATIC[index]
        back = index - _DYNAMIC + 1
        entries = self._entries
        return entries[-back] if back <= len(entries) else (UNKNOWN, UNKNOWN)

    @staticmethod
    def _string(block: bytes, at: int) -> tuple[str, int]:
        octet = block[at]
        at += 1
        length = octet & 0x7F
        if length == 0x7F:
            length, at = _integer(block, at, length)
        end = at + length
        if end > len(block):
            raise _BrokenError("a string is longer than the block")
        raw = block[at:end]
        return (_huffman(raw) if octet & 0x80 else raw.decode("latin-1")), end

    def _insert(self, field: tuple[str, str]) -> None:
        size = len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
        if size > self._limit:  # empties the table and is not an error, 4.4
            self._entries.clear()
            self._size = 0
            return
        self._entries.append(field)
        self._size += size
        if self._size > self._limit:
            self._shrink()

    def _resize(self, size: int) -> None:
        self._limit = min(size, self._table_limit)
        self._shrink()
        if size > self._table_limit:  # the encoder may refer to more than is kept here
            self._complete = False
        if not size:  # whatever was there is gone, so nothing is unknown any more
            self._complete = True

    def _shrink(self) -> None:
        spent = 0
        entries = self._entries
        while self._size > self._limit:
            name, value = entries[spent]
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD
            spent += 1
        del entries[:spent]
