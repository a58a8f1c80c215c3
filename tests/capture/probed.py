# SPDX-License-Identifier: Apache-2.0
"""Whether a process has a breakpoint where its libssl writes.

A uprobe is an instruction written over the first one of the function, in the memory of every
process it applies to (kernel/events/uprobes.c, install_breakpoint). So memory that differs from
the file is a probe, and memory that equals it is proof that there is none.
"""

from __future__ import annotations

import re
from pathlib import Path

from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify

# Where exported functions do nothing but call an internal one, only that is probed.
WRITING = ("ssl_write_internal", "ssl_write_internal+flags", "SSL_write")


def is_probed(pid: int) -> bool:
    """Whether the first bytes of one of the functions that write are other than in the file."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    path = re.search(r"\S*/libssl\.so\S*", maps)[0]
    with ElfFile(path) as elf:
        functions = identify(elf).functions
    offsets = [functions[name] for name in WRITING if name in functions]
    differ = []
    for line in maps.splitlines():
        span, rights, at, _device, _inode, *name = line.split()
        if name[:1] != [path] or "x" not in rights:
            continue
        start, end = (int(word, 16) for word in span.split("-"))
        with Path(f"/proc/{pid}/mem").open("rb") as memory, Path(path).open("rb") as file:
            for offset in offsets:
                place = start + offset - int(at, 16)
                if start <= place < end:
                    memory.seek(place)
                    file.seek(offset)
                    differ.append(memory.read(4) != file.read(4))
    assert len(differ) == len(offsets) > 0, f"not all of {WRITING} are mapped in {pid}"
    return any(differ)
