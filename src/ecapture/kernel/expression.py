# SPDX-License-Identifier: Apache-2.0
"""Filter expressions as in tcpdump, compiled by libpcap itself (pcap-filter(7)).

libpcap is loaded when there is an expression, so that nothing else needs it. On Linux it compiles
``vlan`` differently for a live interface, where the kernel has taken the tag out of the frame; so
for Ethernet the loopback interface is opened, which is always there, and never read from.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ecapture.errors import FeatureMissing, UsageError
from ecapture.kernel.classic import Instruction

_NAMES: Final = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
_ERROR_BYTES = 256  # PCAP_ERRBUF_SIZE
_UNKNOWN_NETMASK = 0xFFFFFFFF
_SNAP_LENGTH = 262144
_SMALL_BUFFER = 1 << 16
_ETHERNET = 1
# DLT_ numbers where they are not those of files (pcap/dlt.h)
_LINK_TYPES: Final = {101: 12}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compile_expression(expression: str, link_type: int) -> list[Instruction]:
    """The program for interfaces of one link type (LINKTYPE_ of files).

    Raises UsageError with libpcap's own words, FeatureMissing if there is no libpcap.
    """
    library = _library()
    program = _Program()
    with _opened(library, link_type) as handle:
        text = os.fsencode(expression)
        if library.pcap_compile(handle, ctypes.byref(program), text, 1, _UNKNOWN_NETMASK):
            said = library.pcap_geterr(handle).decode("utf-8", "replace")
            raise UsageError(
                option=f"packet filter {expression!r}",
                problem=said,
                hint="the language is that of tcpdump: man pcap-filter",
            )
    try:
        return [
            Instruction(given.code, given.jt, given.jf, given.k)
            for given in program.instructions[: program.length]
        ]
    finally:
        library.pcap_freecode(ctypes.byref(program))


@contextmanager
def _opened(library: ctypes.CDLL, link_type: int) -> Iterator[ctypes.c_void_p]:
    handle = _live(library) if link_type == _ETHERNET else None
    if handle is None:
        kind = _LINK_TYPES.get(link_type, link_type)
        handle = ctypes.c_void_p(library.pcap_open_dead(kind, _SNAP_LENGTH))
    try:
        yield handle
    finally:
        library.pcap_close(handle)


def _live(library: ctypes.CDLL) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p(library.pcap_create(b"lo", ctypes.create_string_buffer(_ERROR_BYTES)))
    if not handle:
        return None
    library.pcap_set_snaplen(handle, _SNAP_LENGTH)
    library.pcap_set_buffer_size(handle, _SMALL_BUFFER)
    if library.pcap_activate(handle) < 0:
        library.pcap_close(handle)
        return None
    return handle


def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, result, arguments in (
            ("pcap_create", ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)),
            ("pcap_set_snaplen", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int)),
            ("pcap_set_buffer_size", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int)),
            ("pcap_activate", ctypes.c_int, (ctypes.c_void_p,)),
            ("pcap_open_dead", ctypes.c_void_p, (ctypes.c_int, ctypes.c_int)),
            (
                "pcap_compile",
                ctypes.c_int,
                (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint),
            ),
            ("pcap_geterr", ctypes.c_char_p, (ctypes.c_void_p,)),
            ("pcap_freecode", None, (ctypes.c_void_p,)),
            ("pcap_close", None, (ctypes.c_void_p,)),
        ):
            declared = getattr(library, function)
            declared.restype, declared.argtypes = result, arguments
        return library
    raise FeatureMissing(
        feature="libpcap",
        since="the package libpcap0.8 or libpcap",
        needed_for="a packet filter",
        hint="install it (apt-get install libpcap0.8), or leave the filter out",
    )
