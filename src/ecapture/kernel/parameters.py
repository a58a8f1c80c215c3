# SPDX-License-Identifier: Apache-2.0
"""Tells the kernel programs where a library keeps what two peers agreed on: version and cipher.

That is read out of the library's code in some milliseconds, and remembered from run to run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ecapture._wire import CHAIN, PARAMETER_ROW
from ecapture.binary.cache import Remembered, identity
from ecapture.binary.elf import ElfFile

if TYPE_CHECKING:
    from ecapture.binary.secrets.sites import Chain

_LONGEST_CHAIN: Final = 4


class Parameters(Remembered[bytes]):
    """Rows (struct ec_parameter_row), by file."""

    file_name = "parameters.json"
    judgement = bytes

    def row(self, elf: ElfFile) -> bytes:
        """Where the library in the file keeps version and cipher; zeros: not known.

        Raises NotExecutable if the file contradicts itself.
        """
        _known, row = self.lookup(elf.status)
        if row is not None and len(row) == PARAMETER_ROW.size:
            return row
        from ecapture.binary.secrets.negotiated import negotiated  # noqa: PLC0415 - much code, seldom

        row = PARAMETER_ROW.pack(*(packed_chain(chain) for chain in negotiated(elf)))
        after = os.fstat(elf.fileno())
        if identity(after) == identity(elf.status):
            self.remember(after, row)
        return row


def packed_chain(chain: Chain | None) -> bytes:
    """A walk as the kernel programs read it (struct ec_chain); zeros: there is none."""
    if chain is None or not 0 < len(chain.offsets) <= _LONGEST_CHAIN:
        return bytes(CHAIN.size)
    offsets = (*chain.offsets, 0, 0, 0)[:_LONGEST_CHAIN]
    return CHAIN.pack(*offsets, len(chain.offsets))
