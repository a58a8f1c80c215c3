# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""Finds the packets in which handshakes open, among millions that do not. Documented in _openings.pyi.

Every offset is compared with the end of the captured bytes before it is read from: packets are untrusted.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

cdef enum:
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    QUIC = 3

    PACKET_BLOCK = 6
    ETHERNET = 1
    RAW = 101
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276

    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_QINQ = 0x88A8
    PROTOCOL_HOPOPTS = 0
    PROTOCOL_IPIP = 4
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    PROTOCOL_IPV6 = 41
    PROTOCOL_ROUTING = 43
    PROTOCOL_FRAGMENT = 44
    PROTOCOL_DSTOPTS = 60

    DEEPEST = 4  # VLAN tags, extension headers and tunnels, each


cdef struct Found:
    int kind
    size_t payload
    size_t end
    size_t length  # of the two parts below
    uint8_t source[18]
    uint8_t destination[18]


cdef inline uint32_t u16(const uint8_t *at) noexcept nogil:
    return (<uint32_t>at[0] << 8) | at[1]


cdef inline uint32_t u32(const uint8_t *at) noexcept nogil:
    return (u16(at) << 16) | u16(at + 2)


cdef inline uint32_t native(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


def openings(bytes batch not None, tuple link_types not None):
    cdef const uint8_t *content = <const uint8_t *>PyBytes_AS_STRING(batch)
    cdef size_t size = PyBytes_GET_SIZE(batch), at = 0, length, captured
    cdef uint32_t number, count = len(link_types)
    cdef int link
    cdef int[256] links
    cdef Found found
    for number in range(min(count, <uint32_t>256)):
        links[number] = link_types[number]
    result = []
    while at < size:
        length = native(content + at + 4) if at + 12 <= size else 0
        if length < 12 or length % 4 or length > size - at:
            break
        if native(content + at) == PACKET_BLOCK and length >= 32:
            number = native(content + at + 8)
            captured = native(content + at + 20)
            if captured <= length - 32:
                link = -1
                if number < count:
                    link = links[number] if number < 256 else link_types[number]
                found.kind = 0
                look(content, at + 28, at + 28 + captured, link, &found)
                if found.kind:
                    result.append((
                        at,
                        found.kind,
                        PyBytes_FromStringAndSize(<char *>found.source, found.length),
                        PyBytes_FromStringAndSize(<char *>found.destination, found.length),
                        found.payload,
                        found.end,
                    ))
        at += length
    return result


cdef void look(const uint8_t *content, size_t at, size_t end, int link, Found *found) noexcept nogil:
    cdef uint32_t kind = 0
    cdef int _depth
    if link == ETHERNET or link == LINUX_SLL:
        at += 14 if link == ETHERNET else 16
        if at > end:
            return
        kind = u16(content + at - 2)
        for _depth in range(DEEPEST):
            if kind != ETHERTYPE_VLAN and kind != ETHERTYPE_QINQ:
                break
            if at + 4 > end:
                return
            kind = u16(content + at + 2)
            at += 4
    elif link == LINUX_SLL2:
        if at + 20 > end:
            return
        kind = u16(content + at)
        at += 20
    elif link == RAW or link == IPV4 or link == IPV6:
        if at >= end:
            return
        kind = ETHERTYPE_IPV4 if content[at] >> 4 == 4 else ETHERTYPE_IPV6
    if kind == ETHERTYPE_IPV4:
        network(content, at, end, PROTOCOL_IPIP, found)
    elif kind == ETHERTYPE_IPV6:
        network(content, at, end, PROTOCOL_IPV6, found)


cdef void network(const uint8_t *content, size_t at, size_t end, uint32_t protocol, Found *found) noexcept nogil:
    # Headers of the network layer, tunnels within it, and what they carry.
    cdef size_t header
    cdef int _depth
    for _depth in range(2 * DEEPEST):
        if protocol == PROTOCOL_IPIP:
            if at + 20 > end or content[at] >> 4 != 4:
                return
            header = (content[at] & 15) * 4
            if header < 20 or at + header > end or u16(content + at + 6) & 0x1FFF:
                return
            found.length = 6
            memcpy(found.source, content + at + 12, 4)
            memcpy(found.destination, content + at + 16, 4)
            protocol = content[at + 9]
            # What stands behind is padding of the link. 0: more than fits, by segmentation offload.
            if header <= u16(content + at + 2) <= end - at:
                end = at + u16(content + at + 2)
            at += header
        elif protocol == PROTOCOL_IPV6:
            if at + 40 > end or content[at] >> 4 != 6:
                return
            found.length = 18
            memcpy(found.source, content + at + 8, 16)
            memcpy(found.destination, content + at + 24, 16)
            protocol = content[at + 6]
            at += 40
            if 0 < u16(content + at - 36) <= end - at:
                end = at + u16(content + at - 36)
        elif protocol == PROTOCOL_HOPOPTS or protocol == PROTOCOL_ROUTING or protocol == PROTOCOL_DSTOPTS:
            if at + 8 > end:
                return
            protocol = content[at]
            at += (content[at + 1] + 1) * 8
        elif protocol == PROTOCOL_FRAGMENT:
            if at + 8 > end or u16(content + at + 2) & 0xFFF8:
                return
            protocol = content[at]
            at += 8
        else:
            transport(content, at, end, protocol, found)
            return


cdef void transport(const uint8_t *content, size_t at, size_t end, uint32_t protocol, Found *found) noexcept nogil:
    cdef size_t payload
    cdef const uint8_t *first
    if protocol == PROTOCOL_TCP:
        if at + 20 > end:
            return
        payload = at + (content[at + 12] >> 4) * 4
        if payload < at + 20 or payload + 10 > end:
            return
        first = content + payload
        # A record of the handshake whose first message is a hello (RFC 8446, 5.1 and 4)
        if first[0] != 22 or first[1] != 3 or first[5] not in (CLIENT_HELLO, SERVER_HELLO) or first[9] != 3:
            return
        found.kind = first[5]
    elif protocol == PROTOCOL_UDP:
        payload = at + 8
        if payload + 7 > end:
            return
        first = content + payload
        # A long header of version 1 or 2, of the types Initial or 0-RTT (RFC 9000, 17.2; RFC 9369, 3.2)
        if u32(first + 1) == 1:
            if first[0] & 0xE0 != 0xC0:
                return
        elif u32(first + 1) != 0x6B3343CF or first[0] & 0xF0 not in (0xD0, 0xE0):
            return
        found.kind = QUIC
    else:
        return
    found.payload = payload
    found.end = end
    memcpy(found.source + found.length - 2, content + at, 2)
    memcpy(found.destination + found.length - 2, content + at + 2, 2)
