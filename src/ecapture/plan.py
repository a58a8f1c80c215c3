# SPDX-License-Identifier: Apache-2.0
"""What to attach, as values.

A hook is one function and how to read its call. ``kernel.attach`` carries hooks out; nothing here
touches the kernel.
"""

from __future__ import annotations

import msgspec

from ecapture._wire import HOOK, Direction, HookFlag, Length, Shape

_NO_FLAGS = HookFlag(0)


class Hook(msgspec.Struct, frozen=True):
    """One function to observe. Arguments are numbered from 0.

    A hook with a ``convention`` is for files whose code has it (``binary.library``). ``beside``
    names a function of the same file whose distance the kernel program is told.
    """

    symbol: str
    shape: Shape
    direction: Direction = Direction.READ
    handle: int = 0
    buffer: int = 0
    length: int = 0
    length_kind: Length = Length.RETURNED
    flags: HookFlag = _NO_FLAGS
    convention: str = ""
    beside: str = ""

    def row(self) -> bytes:
        """The hook as the kernel programs read it (struct ec_hook)."""
        return HOOK.pack(
            self.direction,
            self.handle,
            self.buffer,
            self.length,
            self.length_kind,
            self.flags,
            self.shape,
        )


def read(
    symbol: str,
    *,
    buffer: int = 1,
    length: int = 2,
    pointed: bool = False,
    wide: bool = False,
    peeks: bool = False,
) -> Hook:
    """A call that fills a buffer and returns an int, how much.

    ``pointed``: it returns 1, and argument ``length`` points at the count (the _ex calls).
    ``wide``: it returns the count as ssize_t.
    ``peeks``: argument 3 has flags, and what is read with MSG_PEEK will be read again.
    """
    kind, flags = _length(pointed=pointed, wide=wide)
    flags |= HookFlag.PEEKS if peeks else _NO_FLAGS
    return Hook(symbol, Shape.PLAINTEXT, Direction.READ, 0, buffer, length, kind, flags)


def write(
    symbol: str,
    *,
    buffer: int = 1,
    length: int = 2,
    pointed: bool = False,
    wide: bool = False,
) -> Hook:
    """A call that sends a buffer; arguments as for ``read``."""
    kind, flags = _length(pointed=pointed, wide=wide)
    return Hook(symbol, Shape.PLAINTEXT, Direction.WRITE, 0, buffer, length, kind, flags)


def opened(symbol: str, *, span: int) -> Hook:
    """A call that opens bytes: 0 says so, and argument ``span`` points to their place and size."""
    return Hook(symbol, Shape.PLAINTEXT, Direction.READ, 0, span, span, Length.SPAN)


def _length(*, pointed: bool, wide: bool) -> tuple[Length, HookFlag]:
    if pointed:
        return Length.POINTED, HookFlag.WIDE
    return (Length.RETURNED64, HookFlag.WIDE) if wide else (Length.RETURNED, _NO_FLAGS)


def packet(symbol: str) -> Hook:
    """ssize_t f(handle, void **packet): what is read stays in the packet."""
    return Hook(symbol, Shape.PACKET, buffer=1, length_kind=Length.RETURNED64)


def packet_content(symbol: str) -> Hook:
    """f(packet, struct { void *start; unsigned size; } *): the packet's content is told."""
    return Hook(symbol, Shape.PACKET_GET, buffer=1)


def cover(symbol: str) -> Hook:
    """f(handle, ...) that sends, by functions that are hooked, what was shown before."""
    return Hook(symbol, Shape.COVER)


def send_file(symbol: str) -> Hook:
    """ssize_t f(handle, fd, ...): the bytes come from a file, only their number can be told."""
    return Hook(
        symbol, Shape.PLAINTEXT, Direction.WRITE, 0, 0, 0, Length.RETURNED64, HookFlag.NO_BUFFER
    )


def descriptor(symbol: str) -> Hook:
    """f(handle, fd)."""
    return Hook(symbol, Shape.DESCRIPTOR)


def end(symbol: str, *, keeps_handle: bool = False) -> Hook:
    """f(handle) that ends a conversation; ``keeps_handle``: the handle goes on with the next."""
    return Hook(symbol, Shape.END, flags=HookFlag.KEEPS if keeps_handle else _NO_FLAGS)


def begin(symbol: str) -> Hook:
    """A call that returns a new handle, so that an earlier one of its value has ended."""
    return Hook(symbol, Shape.BEGIN)


def served(symbol: str, direction: Direction, *, inner: bool = False) -> Hook:
    """ssize_t f(Port *, void *buffer, size_t length) of a PostgreSQL server.

    ``inner``: one that the first calls, to be hooked in back-ends that may be inside that already.
    """
    if inner:
        return Hook(symbol, Shape.SERVED_INNER_READ, direction)
    shape = Shape.SERVED_READ if direction is Direction.READ else Shape.SERVED_WRITE
    return Hook(symbol, shape, direction)
