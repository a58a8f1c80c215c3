# SPDX-License-Identifier: Apache-2.0
"""AES-128, one block forwards: enough for counter mode and for the header protection of QUIC.

It is here because the standard library has no block cipher, and because what it is used for is not
secret: the first packets of a QUIC connection are encrypted with a key that everybody can compute
(RFC 9001, section 5.2). Tables and memory accesses depend on the key; do not use it for anything
that must stay secret. Source: FIPS 197.
"""

from __future__ import annotations

import struct
from typing import Final

BLOCK: Final = 16
_ROUNDS: Final = 10
_WORDS: Final = struct.Struct(">4I")


def _doubled(value: int) -> int:
    value <<= 1
    return (value ^ 0x11B) if value & 0x100 else value


def _substitution() -> bytes:
    # Inverses in GF(2^8) by logarithms to the generator 3, then the affine map (FIPS 197, 5.1.1).
    powers, logarithms, value = [0] * 255, [0] * 256, 1
    for exponent in range(255):
        powers[exponent], logarithms[value] = value, exponent
        value ^= _doubled(value)
    table = bytearray(256)
    for number in range(256):
        inverse = powers[-logarithms[number] % 255] if number else 0
        mixed = inverse
        for shift in range(1, 5):
            mixed ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        table[number] = mixed ^ 0x63
    return bytes(table)


_SUBSTITUTED: Final = _substitution()


def _columns() -> tuple[tuple[int, ...], ...]:
    # SubBytes and MixColumns of one byte, for each of its four rows.
    first = []
    for value in _SUBSTITUTED:
        double = _doubled(value)
        first.append(double << 24 | value << 16 | value << 8 | double ^ value)
    tables = [tuple(first)]
    for _ in range(3):
        tables.append(tuple(word >> 8 | (word & 0xFF) << 24 for word in tables[-1]))
    return tuple(tables)


_T0, _T1, _T2, _T3 = _columns()


class Aes128:
    """The cipher with one key of 16 bytes."""

    def __init__(self, key: bytes) -> None:
        words = list(_WORDS.unpack(key))
        constant = 1
        while len(words) < 4 * (_ROUNDS + 1):
            word = words[-1]
            if len(words) % 4 == 0:
                word = (word << 8 | word >> 24) & 0xFFFFFFFF
                word = int.from_bytes(word.to_bytes(4, "big").translate(_SUBSTITUTED), "big")
                word ^= constant << 24
                constant = _doubled(constant)
            words.append(words[-4] ^ word)
        self._keys = words

    def block(self, content: bytes) -> bytes:
        """One block of 16 bytes, encrypted."""
        keys = self._keys
        a, b, c, d = (x ^ y for x, y in zip(_WORDS.unpack(content), keys[:4], strict=True))
        for at in range(4, 4 * _ROUNDS, 4):
            a, b, c, d = (
                _T0[x >> 24] ^ _T1[y >> 16 & 255] ^ _T2[z >> 8 & 255] ^ _T3[w & 255] ^ keys[at + n]
                for n, (x, y, z, w) in enumerate(
                    ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c))
                )
            )
        s, last = _SUBSTITUTED, keys[4 * _ROUNDS :]
        return _WORDS.pack(
            *(
                (s[x >> 24] << 24 | s[y >> 16 & 255] << 16 | s[z >> 8 & 255] << 8 | s[w & 255]) ^ k
                for (x, y, z, w), k in zip(
                    ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)), last, strict=True
                )
            )
        )

    def counter(self, nonce: bytes, first: int, content: bytes) -> bytes:
        """Counter mode, either way: ``nonce`` (12 bytes) and a counter that begins at ``first``."""
        count = (len(content) + BLOCK - 1) // BLOCK
        stream = b"".join(
            self.block(nonce + (first + number).to_bytes(4, "big")) for number in range(count)
        )[: len(content)]
        mixed = int.from_bytes(content, "big") ^ int.from_bytes(stream, "big")
        return mixed.to_bytes(len(content), "big")
