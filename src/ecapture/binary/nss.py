# SPDX-License-Identifier: Apache-2.0
"""NSS: where plaintext crosses its TLS layer, and where its keys get their bytes. No names needed.

Programs hand plaintext to NSPR (``PR_Write`` and the like), which serves files, pipes and bare
sockets by the same functions. So NSPR is left alone: what is found here are the functions of
libssl3 that such a call ends in exactly if the descriptor has a TLS layer, and only while TLS is
on. They are static, but cannot hide: a table of methods has their addresses, and the loader must
relocate it.

1. **Method tables** (``ssl_secure_ops``, ``ssl_default_ops`` in lib/ssl/sslsock.c, the same since
   3.12). Two tables of twelve code addresses: connect, accept, bind, listen, shutdown, close, recv,
   send, read, write, getpeername, getsockname. Both lack accept, share bind, listen and the last
   two, and differ in all else. Nothing else in the file looks like that.
2. **Which is which** their code says: the plain ``recv`` hands its arguments to the layer below
   (``ss->fd->lower``), and the ``close`` of the TLS layer ends in the plain one.
3. A key of NSS is a number that stands for an object in softoken. All bytes that such an object
   ever has are given to it by one function, ``sftk_forceAttribute(object, CKA_VALUE, bytes,
   length)`` in lib/softoken/pkcs11u.c. Calls that hand over CKA_VALUE lead to it; its code proves
   it: it reads the object's handle, count of users and slot, and copies what it was handed.

Every address that is answered is the start of a function by the unwinder's table; where anything
is missing or could be read in two ways, there is no answer but a reason.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Final, NamedTuple

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.evaluate import Evaluator, Limits, Pointer, Read, Trace
from ecapture.binary.secrets.functions import Functions, is_stub
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import Call, Jump, Return, Stop

VALUE_SETTER: Final = "sftk_forceAttribute"
"""What the function of softoken is called in its sources."""

_PT_DYNAMIC: Final = 2
_DT_RELA, _DT_RELASZ, _DT_RELRSZ, _DT_RELR = 7, 8, 35, 36
_RELATIVE: Final = {"x86_64": 8, "aarch64": 1027}  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE
_TAG: Final = struct.Struct("<qQ")
_RELA: Final = struct.Struct("<QQq")
_WORD: Final = 8
_MAX_TAGS: Final = 256
_MAX_TABLE: Final = 4 << 20  # bytes of relocations
_MAX_SLOTS: Final = 1 << 17
_MAX_ALIKE: Final = 64
_METHODS: Final = 12
_ACCEPT, _CLOSE, _RECV, _SEND, _READ, _WRITE = 1, 5, 6, 7, 8, 9
_SHARED: Final = (2, 3, 10, 11)
_LOWER: Final = 16  # of PRFileDesc (pr/include/prio.h): methods, secret, lower
_SHORT: Final = Limits(paths=100, steps=2000)

_CKA_VALUE: Final = 0x11
# The second argument becomes CKA_VALUE: mov esi, imm32; movz w1 or x1, imm16.
_HANDED: Final = {
    "x86_64": (b"\xbe\x11\0\0\0",),
    "aarch64": (b"\x21\x02\x80\x52", b"\x21\x02\x80\xd2"),
}
_MAX_HANDED: Final = 4096
_STEPS: Final = 16  # instructions from there to the call
_ENOUGH: Final = 4  # calls that must lead to the function
_CANDIDATES: Final = 8
# SFTKObject (lib/softoken/pkcs11i.h): next, prev, class, handle, count of users, lock, slot
_OBJECT_READS: Final = {Read(Pointer(0, (), 32), 4), Read(Pointer(0, (), 48), 8)}
_HANDLE: Final = range(24, 32)


class Found(NamedTuple):
    """Functions by name and linked address; if there are none, ``reason`` says why."""

    functions: dict[str, int]
    reason: str = ""


def tls_layer(elf: ElfFile) -> Found:
    """Find the functions of libssl3 that take and give plaintext, and the one that ends it.

    ``ssl_SecureRead`` and ``ssl_SecureWrite`` are among them only where they do more than call
    ``ssl_SecureRecv`` and ``ssl_SecureSend``.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    code = _Code(elf)
    if not code.functions.known:
        return Found({}, "has no table that says where its functions start")
    pairs = list(_pairs(code))
    if len(pairs) != 1:
        problem = "several pairs" if pairs else "no pair"
        return Found({}, f"has {problem} of method tables that could be its TLS layer's")
    one, other = pairs[0]
    both = [pair for pair in ((one, other), (other, one)) if _is_tls(code, *pair)]
    if len(both) != 1:
        return Found({}, "its code does not say which of two method tables is its TLS layer's")
    methods = both[0][0]
    chosen = {"ssl_SecureRecv": _RECV, "ssl_SecureSend": _SEND, "ssl_SecureClose": _CLOSE}
    if not _forwards(code, methods[_READ], methods[_RECV]):
        chosen["ssl_SecureRead"] = _READ
    if not _forwards(code, methods[_WRITE], methods[_SEND]):
        chosen["ssl_SecureWrite"] = _WRITE
    return Found({name: methods[number] for name, number in chosen.items()})


def value_setter(elf: ElfFile) -> Found:
    """Find the function of softoken through which objects get their bytes.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    code = _Code(elf)
    votes = Counter(_handed_value(code))
    proven = [
        address
        for address, count in votes.most_common(_CANDIDATES)
        if count >= _ENOUGH and code.functions.is_start(address) and _sets_values(code, address)
    ]
    if len(proven) != 1:
        problem = "several functions" if proven else "no function"
        return Found({}, f"{problem} could be the one that gives objects their bytes")
    return Found({VALUE_SETTER: proven[0]})


class _Code:
    # The file by address, its functions, and what they do.

    def __init__(self, elf: ElfFile) -> None:
        self.image = Image(elf)
        self.functions = Functions(self.image)
        self._evaluator = Evaluator(self.image, self.functions)

    def trace(self, address: int) -> Trace:
        return self._evaluator.trace(address, _SHORT)


# Method tables

_Methods = tuple[int, ...]


def _pairs(code: _Code) -> Iterator[tuple[_Methods, _Methods]]:
    slots = dict(_relocated(code.image))
    alike: dict[tuple[int, ...], list[_Methods]] = defaultdict(list)
    for start in slots:
        methods = tuple(slots.get(start + _WORD * number, 0) for number in range(_METHODS))
        if methods[_ACCEPT] or code.image.bytes_at(start + _WORD, _WORD) != bytes(_WORD):
            continue
        if len(set(methods)) == _METHODS and all(
            code.functions.is_start(address)
            for number, address in enumerate(methods)
            if number != _ACCEPT
        ):
            alike[tuple(methods[number] for number in _SHARED)].append(methods)
    for tables in list(alike.values())[:_MAX_ALIKE]:
        pairs = [pair for pair in combinations(tables[:_MAX_ALIKE], 2) if _differ(*pair)]
        # A third one that shares as much makes it uncertain which two belong together.
        yield from pairs * (2 if len(tables) > 2 else 1)


def _differ(one: _Methods, other: _Methods) -> bool:
    same = {number for number in range(_METHODS) if one[number] == other[number]}
    return same == {_ACCEPT, *_SHARED}


def _relocated(image: Image) -> Iterator[tuple[int, int]]:
    # Slots that the loader fills with addresses of this file, and those addresses as linked.
    tags = dict(_dynamic(image))
    table, size = tags.get(_DT_RELA, 0), min(tags.get(_DT_RELASZ, 0), _MAX_TABLE)
    block = image.bytes_at(table, size - size % _RELA.size) if table else b""
    for slot, kind, addend in _RELA.iter_unpack(block[: len(block) - len(block) % _RELA.size]):
        if kind == _RELATIVE.get(image.machine):
            yield slot, addend
    for number, slot in enumerate(_packed(image, tags)):
        if number >= _MAX_SLOTS:
            return
        yield slot, int.from_bytes(image.bytes_at(slot, _WORD), "little")


def _packed(image: Image, tags: dict[int, int]) -> Iterator[int]:
    # DT_RELR (System V gABI, 2022): an even word is a slot, an odd one marks which of the 63 words
    # behind the last are slots as well. The addresses stand in the slots themselves.
    table, size = tags.get(_DT_RELR, 0), min(tags.get(_DT_RELRSZ, 0), _MAX_TABLE)
    block = image.bytes_at(table, size) if table else b""
    behind = 0
    for (word,) in struct.iter_unpack("<Q", block[: len(block) - len(block) % _WORD]):
        if not word & 1:
            yield word
            behind = word + _WORD
            continue
        for bit in range(63):
            if word >> (bit + 1) & 1:
                yield behind + bit * _WORD
        behind += 63 * _WORD


def _dynamic(image: Image) -> Iterator[tuple[int, int]]:
    start, size = image.segment(_PT_DYNAMIC) or (0, 0)
    block = image.bytes_at(start, min(size, _MAX_TAGS * _TAG.size)) if size else b""
    for tag, value in _TAG.iter_unpack(block[: len(block) - len(block) % _TAG.size]):
        if tag == 0:
            return
        yield tag, value


def _is_tls(code: _Code, tls: _Methods, plain: _Methods) -> bool:
    # The TLS layer's close ends in the plain one; plain receiving goes to the layer below.
    lower = Pointer(0, (0, _LOWER), 0)
    below = any(
        call.target is None and call.arguments[0] == lower
        for call in code.trace(plain[_RECV]).calls
    )
    ends = any(call.target == plain[_CLOSE] for call in code.trace(tls[_CLOSE]).calls)
    return below and ends


def _forwards(code: _Code, outer: int, inner: int) -> bool:
    # Whether a function only calls another one with its own arguments and flags of 0.
    handed = (*(Pointer(number, (), 0) for number in range(3)), 0)
    return any(
        call.target == inner and call.arguments[:4] == handed for call in code.trace(outer).calls
    )


# Softoken


def _handed_value(code: _Code) -> Iterator[int]:
    # The targets of calls that are handed CKA_VALUE as second argument.
    found = 0
    for part in code.image.parts:
        if not part.executable:
            continue
        for start, block in code.image.scan(part, 8):
            for mark in _HANDED.get(code.image.machine, ()):
                at = block.find(mark)
                while at >= 0 and found < _MAX_HANDED:
                    found += 1
                    target = _next_call(code, start + at)
                    if target is not None:
                        yield target
                    at = block.find(mark, at + 1)


def _next_call(code: _Code, address: int) -> int | None:
    for _ in range(_STEPS):
        instruction = code.image.instruction(address)
        for operation in instruction.operations:
            if isinstance(operation, Call):
                return operation.target
            if isinstance(operation, Jump):  # perhaps a call at the very end
                target = operation.target
                return target if target and code.functions.is_start(target) else None
            if isinstance(operation, Return | Stop):
                return None
        address = instruction.end
    return None


def _sets_values(code: _Code, address: int) -> bool:
    if is_stub(code.image, address):
        return False
    trace = code.trace(address)
    copied = any(
        call.arguments[1] == Pointer(2, (), 0) and call.arguments[0] != Pointer(0, (), 0)
        for call in trace.calls
    )
    # Of the handle one bit is tested; compilers load all of it or a part.
    tested = any(
        read.place.root == 0 and not read.place.path and read.place.offset in _HANDLE
        for read in trace.reads
    )
    return copied and tested and set(trace.reads) >= _OBJECT_READS
