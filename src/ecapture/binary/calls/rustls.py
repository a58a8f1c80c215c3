# SPDX-License-Identifier: Apache-2.0
"""Where rustls encrypts and decrypts records, in programs that are stripped and optimised.

What programs call to read and write is generic code, built into whatever they do with it. But each
cipher suite has methods of its own behind trait objects (rustls/src/crypto/cipher.rs since 0.23),
and which of them is called is only known when a suite was agreed on::

    trait MessageEncrypter { fn encrypt(..); fn encrypted_payload_len(&self, usize) -> usize; }
    trait MessageDecrypter { fn decrypt(..); }

So the compiler must keep them, and tables of their addresses: how to drop the object or NULL, its
size, its alignment, then the methods. Strategy:

1. ``encrypted_payload_len`` adds what a record is longer than its content, and nothing else: 17 in
   TLS 1.3 (RFC 8446, 5.2), in TLS 1.2 24 with AES-GCM (RFC 5288) and 16 with ChaCha20 (RFC 7905).
   Where its address stands in such a table, the one before it is ``encrypt``.
2. A table with one method, beside that one, has ``decrypt``. In TLS 1.2 type and version of a
   record are part of what is authenticated (RFC 5246, 6.2.3.3), so they are read; in 1.3 they are
   always the same.
3. Both are evaluated: they must read, of the message that they are given by reference, the very
   words that the kernel program is going to read (bpf/rustls.bpf.c), and no others.

That a function starts there is proven by the unwinder's table or, in programs without one, by the
table of methods itself. What the kernel program is handed it checks once more, record by record.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.boundaries import Boundaries
from ecapture.binary.secrets.evaluate import Evaluator, Limits, Pointer
from ecapture.binary.secrets.functions import Functions
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.sites import Proof

ENCRYPT: Final = "MessageEncrypter::encrypt"
DECRYPT: Final = "tls13::MessageDecrypter::decrypt"
DECRYPT_OLDER: Final = "tls12::MessageDecrypter::decrypt"

_OVERHEADS: Final = {17: "TLS 1.3", 24: "TLS 1.2 with AES-GCM", 16: "TLS 1.2 with ChaCha20"}
_NEWEST: Final = 17
_X86: Final = re.compile(
    rb"(?:\xf3\x0f\x1e\xfa)?(?:\x55\x48\x89\xe5)?"  # endbr64; push rbp; mov rbp, rsp
    rb"\x48\x8d\x46([\x10\x11\x18])\x5d?\xc3"  # lea rax, [rsi + n]; pop rbp; ret
)
_LONGEST: Final = 16  # bytes of that
_ADD, _RET = 0x91000020, 0xD65F03C0  # add x0, x1, #n; ret
_WORD: Final = 8
_METHODS: Final = 3 * _WORD  # where the first one's address stands
_ALIGNMENTS: Final = (8, 16)
_LARGEST: Final = 4096  # bytes of an object: keys, and what was computed from them
_SMALLEST: Final = 32  # a key of 16 bytes, a nonce of 12
_BESIDE: Final = 256  # bytes between two tables of one suite
_MAX_TABLES: Final = 64
_MAX_LENGTHS: Final = 256
# Loops over a nonce of twelve bytes stand between what is read first and last.
_LIMITS: Final = Limits(paths=60, steps=1500, doubt=True, returns=12)
# Of OutboundPlainMessage words, and where its type is; of InboundOpaqueMessage its length, where
# its type and its version are, and its size.
_OUTBOUND: Final = {(0, 8), (16, 8), (24, 8)}
_TYPE: Final = (32, 33)
_INBOUND: Final = (8, 8)
_INBOUND_TYPE: Final = (16, 17)
_INBOUND_VERSION: Final = (18, 2)
_INBOUND_SIZE: Final = 24
# The argument that the message is: behind where the result goes, which has a register of its own
# on AArch64, and the object itself.
_MESSAGE: Final = {"x86_64": 2, "aarch64": 1}


class Methods(NamedTuple):
    """Addresses of methods of all suites, as linked, by name; ``reason`` if they are not proven."""

    places: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    proof: Proof | None = None
    versions: tuple[str, ...] = ()
    reason: str = ""


def locate_methods(elf: ElfFile) -> Methods:
    """Return where this file's rustls encrypts and decrypts, or why nothing about that is certain.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.machine not in _MESSAGE:
        return Methods(reason=f"code for {elf.machine} is not read")
    return _Search(elf).run()


class _Search:
    def __init__(self, elf: ElfFile) -> None:
        self._image = Image(elf)
        self._boundaries = Boundaries(elf, self._image)
        self._functions = Functions(self._image)
        self._evaluator = Evaluator(self._image, self._functions)
        self._message = _MESSAGE[elf.machine]
        self._lengths = dict(_length_functions(self._image))

    def run(self) -> Methods:
        encrypt: dict[int, int] = {}
        decrypt: dict[str, set[int]] = {DECRYPT: set(), DECRYPT_OLDER: set()}
        tables = self._tables()
        for table, overhead in tables.items():
            method = self._boundaries.word(table + _METHODS)
            if not self._encrypts(method):
                continue
            name = DECRYPT if overhead == _NEWEST else DECRYPT_OLDER
            beside = {found for found, what in self._beside(table) if what == name}
            if not beside:
                return Methods(reason=f"nothing proves to decrypt {_OVERHEADS[overhead]}")
            encrypt[method] = overhead
            decrypt[name] |= beside
        if not tables:
            return Methods(reason="it has no suites as rustls has them since 0.23")
        if _NEWEST not in encrypt.values():
            return Methods(reason="no function of it proves to be one that encrypts TLS 1.3")
        proof = Proof.FRAME_TABLE if self._functions.known else Proof.POINTER
        versions = tuple(text for n, text in _OVERHEADS.items() if n in encrypt.values())
        places = {ENCRYPT: set(encrypt), **decrypt}
        return Methods({n: tuple(sorted(p)) for n, p in places.items() if p}, proof, versions)

    def _tables(self) -> dict[int, int]:
        # Tables of encrypters, and by how much theirs make records longer.
        tables: dict[int, int] = {}
        for place in self._boundaries.pointers_to(self._lengths)[: 4 * _MAX_TABLES]:
            table = place - _METHODS - _WORD
            # two entries of a damaged file may make the same pointer
            length = self._lengths.get(self._boundaries.word(place))
            if length is not None and self._is_table(table) and len(tables) < _MAX_TABLES:
                tables[table] = length
        return tables

    def _is_table(self, table: int) -> bool:
        drop, size, alignment, method = (
            self._boundaries.word(table + step) for step in range(0, 4 * _WORD, _WORD)
        )
        return (
            (not drop or self._is_code(drop))
            and _SMALLEST <= size <= _LARGEST
            and alignment in _ALIGNMENTS
            and self._is_code(method)
        )

    def _is_code(self, address: int) -> bool:
        return self._image.part_of(address, executable=True) is not None

    def _starts(self, method: int) -> bool:
        if self._functions.known:
            return self._functions.is_start(method)
        return self._is_code(method)

    def _encrypts(self, method: int) -> bool:
        reads = self._reads(method)
        return (
            self._starts(method)
            and reads >= _OUTBOUND
            and any(offset in _TYPE and size < _WORD for offset, size in reads)
        )

    def _beside(self, table: int) -> Iterator[tuple[int, str]]:
        # Methods that decrypt, of tables around this one that have no second method.
        for other in range(table - _BESIDE, table + _BESIDE, _WORD):
            if not self._is_table(other):
                continue
            second = self._boundaries.word(other + _METHODS + _WORD)
            if self._starts(second) and not self._is_table(other + _METHODS + _WORD):
                continue
            method = self._boundaries.word(other + _METHODS)
            if self._starts(method) and (name := self._decrypts(method)):
                yield method, name

    def _decrypts(self, method: int) -> str:
        # The name of a method that decrypts; empty if it is none.
        reads = self._reads(method)
        if _INBOUND not in reads or any(offset >= _INBOUND_SIZE for offset, _size in reads):
            return ""
        if any(offset in _INBOUND_TYPE and size < _WORD for offset, size in reads):
            return DECRYPT_OLDER if _INBOUND_VERSION in reads else ""
        return DECRYPT

    def _reads(self, method: int) -> set[tuple[int, int]]:
        # What a method reads of its message, as (offset, size).
        trace = self._evaluator.trace(method, _LIMITS)
        message = Pointer(self._message, (), 0)
        return {
            (read.place.offset, read.size) for read in trace.reads if read.place[:2] == message[:2]
        }


def _length_functions(image: Image) -> Iterator[tuple[int, int]]:
    """Yield functions that only add an overhead to their second argument, and the overhead."""
    count = 0
    for part in image.parts:
        if not part.executable:
            continue
        for address, block in image.scan(part, _LONGEST):
            found = _added_x86(block) if image.machine == "x86_64" else _added_aarch64(block)
            for at, overhead in found:
                count += 1
                if count > _MAX_LENGTHS:
                    return
                yield address + at, overhead


def _added_x86(block: bytes) -> Iterator[tuple[int, int]]:
    for match in _X86.finditer(block):
        yield match.start(), match[1][0]


def _added_aarch64(block: bytes) -> Iterator[tuple[int, int]]:
    for overhead in _OVERHEADS:
        text = struct.pack("<II", _ADD | overhead << 10, _RET)
        at = block.find(text)
        while at >= 0:
            if at % 4 == 0:
                yield at, overhead
            at = block.find(text, at + 1)
