# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs are told of a server."""

from __future__ import annotations

from ecapture._wire import CHAIN, SERVER_ROW, WALK
from ecapture.binary.server import FIELDS, Server, Walk


def test_a_row_has_a_walk_for_each_field_in_its_place() -> None:
    server = Server(dispatch=3, walks={"user": Walk((976, 8), 0), "rows": Walk((984,), 8)})
    *walks, dispatch = SERVER_ROW.unpack(server.pack())
    by_name = dict(zip(FIELDS, walks, strict=True))
    chain, size = WALK.unpack(by_name.pop("user"))
    assert (CHAIN.unpack(chain), size) == ((976, 8, 0, 0, 2), 0)
    chain, size = WALK.unpack(by_name.pop("rows"))
    assert (CHAIN.unpack(chain), size) == ((984, 0, 0, 0, 1), 8)
    assert set(by_name.values()) == {bytes(WALK.size)}
    assert dispatch == 3
