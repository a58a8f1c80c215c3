# SPDX-License-Identifier: Apache-2.0
"""The tool with its hooks on the exported functions, whatever it would rather hook.

    python exported.py tls --pid 1234 ...      # words as of ``ecapture``

For comparison alone: an empty program and the tool's own on the very same places. The judgements
that this makes are no one else's, so they are kept in a directory of their own, for one run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping

from ecapture.binary import identify
from ecapture.binary.elf import ElfFile
from ecapture.cli.main import main


def _nothing(_elf: ElfFile, _named: Mapping[str, int]) -> tuple[dict[str, int], dict[str, str]]:
    return {}, {}


if __name__ == "__main__":
    identify.inner_functions = _nothing
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        main(sys.argv[1:])
