# SPDX-License-Identifier: Apache-2.0
"""Names for files that are to be hooked, which do not keep their file systems in use.

A link of probes holds the path that it was made by, and so the mount that the path goes through
(``bpf_uprobe_multi_link.path`` in kernel/trace/bpf_trace.c, ``trace_uprobe.path`` in
kernel/trace/trace_uprobe.c): nobody could unmount a file system of which a file is hooked. Hooked
through a mount that only the link knows, the file's own mount is as free as without us.

Of another mount namespace no mount can be cloned before Linux 6.15 (open_tree(2)); there a file is
hooked by the name it has here, if it has one, else by the path that is given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ecapture.kernel import _mounts


@contextlib.contextmanager
def unheld(path: str, name: str = "") -> Iterator[str]:
    """A path to the same file as ``path``, valid within the block, to hook it by.

    ``name`` is what the file is perhaps called here.
    """
    wanted = os.stat(path)  # noqa: PTH116
    for candidate in dict.fromkeys((name, path)):
        try:
            fd = _mounts.clone(candidate)
        except OSError:
            continue
        try:
            found = os.fstat(fd)  # by now it may be another that is called so
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                yield f"/proc/self/fd/{fd}"
                return
        finally:
            os.close(fd)
    yield path
