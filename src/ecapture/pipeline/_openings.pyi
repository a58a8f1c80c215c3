# SPDX-License-Identifier: Apache-2.0
"""Finds the packets in which handshakes open, among millions that do not.

Native, because it looks at every packet there is: some nanoseconds each, and Python sees only what
was found. It understands Ethernet with VLAN tags, Linux cooked and raw links, IPv4 and IPv6 with
extension headers, and IP in IP; and finds TCP segments that begin with a hello of TLS, and UDP
datagrams that begin with an Initial or 0-RTT packet of QUIC.
"""

def openings(
    batch: bytes, link_types: tuple[int, ...]
) -> list[tuple[int, int, bytes, bytes, int, int]]:
    """(block, kind, source, destination, payload, end) of each, in order.

    ``batch`` are whole pcapng blocks, ``link_types`` those of the interfaces by number. ``block``,
    ``payload`` and ``end`` are offsets in the batch: of the packet's block, and of what TCP or UDP
    carries. ``kind`` is 1 for a ClientHello, 2 for a ServerHello, 3 for QUIC. ``source`` and
    ``destination`` are address and port as they stand in the packet. It ends where the batch has
    something else than a block.
    """
