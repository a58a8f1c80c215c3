# SPDX-License-Identifier: Apache-2.0
"""The beginning of a QUIC connection: what a client's Initial packets say in their CRYPTO frames.

Strategy: Initial packets are encrypted with keys that follow from the connection id that the client
chose, so anybody who sees the first packet can read it (RFC 9001, section 5.2; RFC 9369 for
version 2). Only what is asked for is decrypted: a caller wants the first bytes of the ClientHello,
and these stand at the front unless the client scatters them, so the payload is decrypted a
piece at a time.

Invariants: the packet's tag is not verified, because nothing of what is read is believed further
than to look a connection up by it; bytes that make no sense raise ProtocolError; no more than the
first 2048 bytes of a packet are decrypted.
"""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from ecapture.errors import ProtocolError
from ecapture.protocols.aes import BLOCK, Aes128
from ecapture.protocols.key_schedule import expand_label

VERSION_1: Final = 1
VERSION_2: Final = 0x6B3343CF
_INITIAL_TYPE: Final = {VERSION_1: 0, VERSION_2: 1}
_EARLY_TYPE: Final = {VERSION_1: 1, VERSION_2: 2}
_SALTS: Final = {
    VERSION_1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    VERSION_2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
}
_LABELS: Final = {VERSION_1: b"quic ", VERSION_2: b"quicv2 "}
_LONGEST_ID: Final = 20
_SAMPLE: Final = 16
_TAG: Final = 16
_LONGEST_PAYLOAD: Final = 2048  # clients keep to what every path carries, 1200 to 1500 bytes
_FIRST_COUNTER: Final = 2  # of GCM's key stream; 1 is for the tag (NIST SP 800-38D)
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO = 0, 1, 2, 3, 6


class Initial(msgspec.Struct, frozen=True):
    """An Initial packet, as far as its header is not protected.

    ``number_at`` is the offset of the packet number in the datagram, ``end`` that of what follows
    the packet.
    """

    version: int
    destination_id: bytes
    number_at: int
    end: int


def initial(datagram: bytes) -> Initial | None:
    """The Initial packet that a datagram begins with; None if it begins with something else.

    Raises ProtocolError if it is cut off or contradicts itself.
    """
    if len(datagram) < 7 or not datagram[0] & 0x80:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    if version not in _SALTS or datagram[0] >> 4 & 3 != _INITIAL_TYPE[version]:
        return None
    at = 5
    ids = []
    for _ in range(2):
        length = datagram[at] if at < len(datagram) else _LONGEST_ID + 1
        if length > _LONGEST_ID:
            raise _malformed(at, "a connection id is too long")
        ids.append(datagram[at + 1 : at + 1 + length])
        at += 1 + length
    token, at = _varint(datagram, at)
    length, at = _varint(datagram, at + token)
    if at + length > len(datagram) or length < 4 + _SAMPLE:
        raise _malformed(at, f"a packet of {length} bytes")
    return Initial(version, ids[0], at, at + length)


def is_early(datagram: bytes, at: int = 0) -> bool:
    """Whether a packet of early data (0-RTT) begins there."""
    if len(datagram) < at + 5 or not datagram[at] & 0x80:
        return False
    version = int.from_bytes(datagram[at + 1 : at + 5], "big")
    return datagram[at] >> 4 & 3 == _EARLY_TYPE.get(version)


def client_secret(version: int, destination_id: bytes) -> bytes:
    """The secret of a client's Initial packets (RFC 9001, 5.2): everybody can compute it."""
    first = hmac.digest(_SALTS[version], destination_id, "sha256")
    return expand_label("sha256", first, b"client in", b"", 32)


class Crypto:
    """The first bytes of the CRYPTO stream of one client, from as many packets as it takes."""

    def __init__(self, version: int, destination_id: bytes, *, wanted: int) -> None:
        secret, label = client_secret(version, destination_id), _LABELS[version]
        self._payload = Aes128(expand_label("sha256", secret, label + b"key", b"", 16))
        self._header = Aes128(expand_label("sha256", secret, label + b"hp", b"", 16))
        self._nonce = expand_label("sha256", secret, label + b"iv", b"", 12)
        self._bytes = bytearray(wanted)
        self._there = bytearray(wanted)

    @property
    def begun(self) -> bytes:
        """The wanted bytes; empty while some are missing."""
        return b"" if 0 in self._there else bytes(self._bytes)

    def feed(self, datagram: bytes, packet: Initial) -> None:
        """Takes one packet in. Raises ProtocolError if it is none of this client's."""
        at = packet.number_at
        mask = self._header.block(datagram[at + 4 : at + 4 + _SAMPLE])
        width = ((datagram[0] ^ mask[0]) & 3) + 1
        number = bytes(a ^ b for a, b in zip(datagram[at : at + width], mask[1:], strict=False))
        whole = int.from_bytes(self._nonce, "big") ^ int.from_bytes(number, "big")
        payload = datagram[at + width : packet.end - _TAG][:_LONGEST_PAYLOAD]
        frames = _Decrypted(self._payload, whole.to_bytes(12, "big"), payload)
        at = 0
        while at < len(frames) and not self.begun:
            at = self._frame(frames, at)

    def _frame(self, frames: _Decrypted, at: int) -> int:
        kind = frames.byte(at)
        at += 1
        if kind in (_PADDING, _PING):
            return at
        if kind in (_ACK, _ACK_ECN):
            _largest, at = frames.varint(at)
            _delay, at = frames.varint(at)
            ranges, at = frames.varint(at)
            _first, at = frames.varint(at)
            for _ in range(2 * ranges + (3 if kind == _ACK_ECN else 0)):
                _value, at = frames.varint(at)
            return at
        if kind != _CRYPTO:
            raise _malformed(at - 1, f"a frame of type {kind} in an Initial packet")
        offset, at = frames.varint(at)
        length, at = frames.varint(at)
        wanted = min(length, max(0, len(self._bytes) - offset))
        if wanted:
            self._bytes[offset : offset + wanted] = frames.slice(at, at + wanted)
            self._there[offset : offset + wanted] = b"\1" * wanted
        return at + length


class _Decrypted:
    # Decrypts what is looked at, in order, and no more.

    def __init__(self, cipher: Aes128, nonce: bytes, content: bytes) -> None:
        self._cipher, self._nonce, self._content = cipher, nonce, content
        self._blocks: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._content)

    def slice(self, begin: int, end: int) -> bytes:
        if end > len(self._content):
            raise _malformed(end, "a frame is cut off")
        first, last = begin // BLOCK, (end + BLOCK - 1) // BLOCK
        plain = b"".join(self._block(number) for number in range(first, last))
        return plain[begin - first * BLOCK : end - first * BLOCK]

    def byte(self, at: int) -> int:
        return self.slice(at, at + 1)[0]

    def varint(self, at: int) -> tuple[int, int]:
        return _varint(self.slice(at, at + (1 << (self.byte(at) >> 6))), 0, at)

    def _block(self, number: int) -> bytes:
        found = self._blocks.get(number)
        if found is None:
            encrypted = self._content[number * BLOCK : (number + 1) * BLOCK]
            found = self._cipher.counter(self._nonce, _FIRST_COUNTER + number, encrypted)
            self._blocks[number] = found
        return found


def _varint(content: bytes, at: int, base: int = 0) -> tuple[int, int]:
    """(value, where it ends) of a variable-length integer (RFC 9000, section 16)."""
    if at >= len(content):
        raise _malformed(base + at, "it ends before a number")
    length = 1 << (content[at] >> 6)
    raw = content[at : at + length]
    if len(raw) < length:
        raise _malformed(base + at, "it ends within a number")
    return int.from_bytes(raw, "big") & ((1 << (8 * length - 2)) - 1), base + at + length


def _malformed(at: int, reason: str) -> ProtocolError:
    return ProtocolError(protocol="QUIC", offset=at, reason=reason)
