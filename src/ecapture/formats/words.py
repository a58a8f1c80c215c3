# SPDX-License-Identifier: Apache-2.0
"""What was captured, as it may be shown: nothing in it drives a terminal or breaks a line."""

from __future__ import annotations

import re
from typing import Final

_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
_UNSAFE_WORD: Final = re.compile(r"[^\x21-\x7e]|\\")
_UNSAFE_PHRASE: Final = re.compile(r"[^\x20-\x7e]")
_LONGEST_PHRASE: Final = 512


def escaped(payload: bytes) -> bytes:
    r"""The payload for a terminal: UTF-8 with \xNN for what is not, and for control characters."""
    text = payload.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return _UNSAFE.sub(_escape, text).encode()


def escaped_json(encoded: bytes) -> bytes:
    r"""JSON for a terminal: the same document, with \uNNNN for what JSON lets stand as it is."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    # Below that everything is escaped by JSON itself.
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()


def word(text: str) -> str:
    r"""A word of a header line: printable ASCII, the rest as \xNN, \uNNNN or \UNNNNNNNN."""
    return _UNSAFE_WORD.sub(_escape, text) or "-"


def phrase(text: str) -> str:
    r"""Words for a header line: printable ASCII and blanks as they are, the rest as in ``word``."""
    return _UNSAFE_PHRASE.sub(_escape, text[:_LONGEST_PHRASE])


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def endpoint(address: str, port: int) -> str:
    """address:port, an IPv6 address in brackets (RFC 5952, 6)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def hex_dump(payload: bytes) -> bytes:
    """Sixteen bytes a line: offset, hexadecimal, printable ASCII."""
    lines = []
    for at in range(0, len(payload), 16):
        row = payload[at : at + 16]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{at:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  |{shown}|")
    return "\n".join(lines).encode()
