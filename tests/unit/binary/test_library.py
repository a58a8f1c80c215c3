# SPDX-License-Identifier: Apache-2.0
"""What is said of a file can be kept, and says whether anything of it is shown."""

from __future__ import annotations

from typing import get_args

import msgspec

from ecapture.binary.library import KEYS_ONLY, NOT_TLS, Kind, Library
from ecapture.binary.server import Server, Walk


def test_a_judgement_is_the_same_when_it_was_kept() -> None:
    server = Server(dispatch=2, walks={"user": Walk((976, 8), 0)}, absent={"host": "not found"})
    library = Library(
        kind="mysqld",
        linkage="executable",
        how="dynsym",
        visible=True,
        functions={"dispatch_command": 0x1000},
        returns={"dispatch_command": (0x1010, 0x1020)},
        also=("openssl",),
        server=server,
    )
    assert msgspec.json.decode(msgspec.json.encode(library), type=Library) == library


def test_special_kinds_are_kinds() -> None:
    assert set(get_args(Kind)) > NOT_TLS | KEYS_ONLY
