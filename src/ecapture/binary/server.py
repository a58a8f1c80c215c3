# SPDX-License-Identifier: Apache-2.0
"""What a MySQL server's build shows of its sessions, as values; ``mysqld`` finds it out."""

from __future__ import annotations

from typing import Final

import msgspec

from ecapture._wire import CHAIN, SERVER_ROW, WALK

FIELDS: Final = ("connection", "user", "host", "address", "database", "executed", "rows")


class Walk(msgspec.Struct, frozen=True):
    """Where a value stands in a session's object: load a pointer at each offset but the last.

    ``size`` is that of a number in bytes; of a text 0 if it ends with a NUL, 8 if its length
    follows the pointer.
    """

    offsets: tuple[int, ...]
    size: int

    def pack(self) -> bytes:
        """The walk as the kernel programs read it (struct ec_walk)."""
        offsets = (*self.offsets, 0, 0, 0, 0)[:4]
        return WALK.pack(CHAIN.pack(*offsets, len(self.offsets)), self.size)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What a server's build shows of its sessions.

    ``dispatch`` is how it hands commands over; ``walks`` leads to fields by name; ``absent`` says
    of each other field why it cannot be shown.
    """

    dispatch: int
    walks: dict[str, Walk] = {}
    absent: dict[str, str] = {}

    def pack(self) -> bytes:
        """The row that the kernel programs read (struct ec_server_row)."""
        nothing = bytes(WALK.size)
        walks = [self.walks[n].pack() if n in self.walks else nothing for n in FIELDS]
        return SERVER_ROW.pack(*walks, self.dispatch)
