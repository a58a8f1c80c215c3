# SPDX-License-Identifier: Apache-2.0
"""The initial RAM disk of a guest: busybox, an init script, a few modules in the order of loading.

The disk is written as the "newc" cpio format of the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst, uncompressed: it lives for one boot.
Modules are stored unpacked, since not every kernel unpacks them itself.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path

# What a guest cannot do without: the bus, the channel for its output, the root filesystem,
# and the network devices and traffic control that captures of packets are tested on.
MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtiofs",
    "overlay",
    "veth",
    "dummy",
    "sch_ingress",
    "cls_bpf",
)


def load_order(
    dependencies: str, builtin: str, wanted: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Return the module files to load, in order, and the names this kernel lacks altogether.

    ``dependencies`` is the text of ``modules.dep``: for each file the files it needs, the one to
    load first standing last (man 5 modules.dep). ``builtin`` is the text of ``modules.builtin``.
    """
    files: dict[str, list[str]] = {}
    for line in dependencies.splitlines():
        path, _, needed = line.partition(":")
        files[module_name(path)] = [*reversed(needed.split()), path]
    present = {module_name(path) for path in builtin.split()}
    ordered: dict[str, None] = {}
    missing: list[str] = []
    for name in wanted:
        if name in files:
            ordered.update(dict.fromkeys(files[name]))
        elif name not in present:
            missing.append(name)
    return list(ordered), missing


def module_name(path: str) -> str:
    """Return the name that the kernel gives the module in a file: no suffix, no hyphens."""
    return path.rpartition("/")[2].split(".", 1)[0].replace("-", "_")


def module_image(path: Path) -> bytes:
    """Return a module's unpacked contents.

    Raises:
        ValueError: it is packed in a way that no kernel of the list uses.

    """
    if path.suffix == ".ko":
        return path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    raise ValueError(f"no way to unpack {path.name}")


def cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an archive of files: relative path to (mode, contents), parents before children.

    The mode holds the type too, as in ``st_mode``; a directory has no contents and those of a
    symbolic link are its target.
    """
    parts: list[bytes] = []
    for number, (path, (mode, contents)) in enumerate(files.items(), start=1):
        parts.append(_entry(number, path, mode, contents))
    parts.append(_entry(0, "TRAILER!!!", 0, b""))
    return b"".join(parts)


def _entry(number: int, path: str, mode: int, contents: bytes) -> bytes:
    """Return one member: a header of 13 fields of eight hexadecimal digits, name, contents."""
    name = path.encode() + b"\0"
    links, owner, group, time = 1, 0, 0, 0
    no_device = (0, 0, 0, 0)  # of the file and, for a device node, the device itself
    fields = (number, mode, owner, group, links, time, len(contents), *no_device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(contents)


def _padded(data: bytes) -> bytes:
    """Fill up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)
