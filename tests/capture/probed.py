# SPDX-License-Identifier: Apache-2.0
"""Whether a process has a breakpoint on a function of its libssl.

A uprobe is an instruction written over the first one of the function, in the memory of every
process it applies to (kernel/events/uprobes.c, install_breakpoint). So memory that differs from
the file is a probe, and memory that equals it is proof that there is none.
"""

from __future__ import annotations

import re
from pathlib import Path

from ecapture.binary.elf import ElfFile
from ecapture.binary.library import identify


def is_probed(pid: int, function: str = "SSL_write") -> bool:
    """Whether the first bytes of the function are other than in the file."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    path = re.search(r"\S*/libssl\.so\S*", maps)[0]
    with ElfFile(path) as elf:
        library = identify(elf)
    offset = library.functions[function]
    for line in maps.splitlines():
        span, rights, at, _device, _inode, *name = line.split()
        if name[:1] != [path] or "x" not in rights:
            continue
        start, end = (int(word, 16) for word in span.split("-"))
        place = start + offset - int(at, 16)
        if start <= place < end:
            with Path(f"/proc/{pid}/mem").open("rb") as memory, Path(path).open("rb") as file:
                memory.seek(place)
                file.seek(offset)
                return memory.read(4) != file.read(4)
    raise AssertionError(f"{function} is not mapped in {pid}")
