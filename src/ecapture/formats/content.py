# SPDX-License-Identifier: Apache-2.0
"""Whether content is text, and in which charset: asked by every format that shows bodies.

Strategy: the media type decides where it is clear (``text/*``, JSON, ``image/*``), the bytes
decide elsewhere. Only charsets of a fixed list are looked up: the name comes from the network, and
some of Python's codecs are none for text, or take quadratic time.

Bounds: control characters are looked for in the first ``_LOOKED_AT`` bytes only; everything else is
one pass over the content. Nothing is raised.
"""

from __future__ import annotations

import codecs
from functools import lru_cache
from typing import Final, NamedTuple

from ecapture.protocols.messages import Fields, Head

_LOOKED_AT: Final = 1024
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\f\r\x1b")) + b"\x7f"
_TYPE_LIMIT: Final = 256  # a longer Content-Type is none worth remembering

_TEXT: Final = frozenset(
    {
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/ndjson",
        "application/sql",
        "application/toml",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    }
)
_BINARY: Final = frozenset(
    {"application/gzip", "application/pdf", "application/wasm", "application/zip"}
)
_PROTOBUF: Final = frozenset(
    {
        "application/protobuf",
        "application/vnd.google.protobuf",
        "application/x-google-protobuf",
        "application/x-protobuf",
    }
)
# WHATWG Encoding, 4.2, in the names that are met in practice; all of them are codecs in C.
_CHARSETS: Final = frozenset(
    {"big5", "euc-jp", "euc-kr", "gb18030", "gb2312", "gbk", "iso-2022-jp", "koi8-r", "koi8-u"}
    | {"shift_jis", "utf-16", "utf-16be", "utf-16le", "utf-32"}
    | {f"iso-8859-{part}" for part in range(1, 17) if part != 12}  # which was given up
    | {f"windows-125{page}" for page in range(9)}
)


class ContentType(NamedTuple):
    """A Content-Type. ``textual`` is None where the type leaves it open; ``charset`` a codec."""

    media: str
    charset: str
    textual: bool | None

    @property
    def protobuf(self) -> bool:
        """Whether this is one protocol buffer. gRPC, a sequence of them, is not."""
        return self.media in _PROTOBUF


def _parse(value: str) -> ContentType:
    media, _, parameters = value.partition(";")
    media = media.strip().lower()
    charset = "utf-8"
    for parameter in parameters.split(";"):
        name, _, named = parameter.partition("=")
        if name.strip().lower() == "charset":
            named = named.strip().strip("\"'").lower()
            charset = named if named in _CHARSETS else "utf-8"
    return ContentType(media, charset, _textual(media))


def _textual(media: str) -> bool | None:
    kind, _, name = media.partition("/")
    if kind == "text" or media in _TEXT or name.endswith(("+json", "+xml", "+yaml")):
        return True
    if kind in ("image", "audio", "video", "font") or media in _BINARY or media in _PROTOBUF:
        return False
    return None


_parse_cached = lru_cache(maxsize=1024)(_parse)


def content_type(head: Head) -> ContentType:
    """Return what a head says of its content. ``media`` is empty where it says nothing."""
    value = head.get("content-type")
    return _parse_cached(value) if len(value) <= _TYPE_LIMIT else _parse(value[:_TYPE_LIMIT])


def is_text(content: bytes, *, middle: bool = False) -> bool:
    """Tell whether bytes of unknown type are UTF-8 without control characters.

    A character cut off at the end is no objection, nor one at the beginning if ``middle``.
    """
    if _has_controls(content):
        return False
    if content.isascii():
        return True
    if middle:
        at = 0
        while at < min(3, len(content)) and content[at] & 0xC0 == 0x80:
            at += 1
        content = content[at:]
    return _decoded(content, "utf-8", cut=True) is not None


def text_of(content: bytes, kind: ContentType, *, cut: bool) -> str | None:
    """Return content as text where it is valid in its charset, else None.

    ``cut``: the end is missing, so that a character may be cut off; what is left of it is dropped.
    """
    if kind.textual is False or (kind.textual is None and not is_text(content)):
        return None
    return _decoded(content, kind.charset, cut=cut)


def printable(content: bytes, kind: ContentType) -> bytes | None:
    """Return content for reading: as it is, or in UTF-8 if it was in another charset. None: binary.

    What claims to be text is let pass with bytes that are not UTF-8, or with control characters,
    but not with both, nor with NUL (such as content whose coding could not be undone).
    """
    if kind.textual is False:
        return None
    wide = kind.charset.startswith(("utf-16", "utf-32"))
    if (kind.textual or kind.charset != "utf-8") and not wide and _has_controls(content):
        odd = b"\0" in content[:_LOOKED_AT] or kind.charset != "utf-8"
        return None if odd or _decoded(content, "utf-8", cut=True) is None else content
    if kind.charset != "utf-8":
        return content.decode(kind.charset, "replace").encode()
    return content if kind.textual or is_text(content) else None


def field_text(value: str) -> str:
    """Return a field's value, which is latin-1, as UTF-8 where its bytes are that."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def has_grpc_status(fields: Fields) -> bool:
    """Tell whether these trailers end a gRPC call."""
    return any(name == "grpc-status" for name, _ in fields)


def _has_controls(content: bytes) -> bool:
    start = content[:_LOOKED_AT]
    return len(start.translate(None, _CONTROLS)) != len(start)


def _decoded(content: bytes, charset: str, *, cut: bool) -> str | None:
    try:
        if charset == "utf-8":
            return codecs.utf_8_decode(content, "strict", not cut)[0]
        return codecs.getincrementaldecoder(charset)("strict").decode(content, not cut)
    except UnicodeError:
        return None
