# SPDX-License-Identifier: Apache-2.0
"""What the extension ``_network`` offers: attaching to interfaces and cgroups, and namespaces.

Thin and without policy, as ``_native``; what is attached where is said in ``kernel.packets`` and
``kernel.owners``.
"""

from types import TracebackType
from typing import Self

from typing_extensions import disjoint_base

@disjoint_base
class Attachment:
    """A loaded program at a target that is named by a number (BPF_LINK_CREATE).

    ``target`` is an interface's index in the namespace of the calling thread, a descriptor of a
    cgroup's directory, or 0 for an iterator; ``attach_type`` is of enum bpf_attach_type and
    ``flags`` are those of the kind of link. It ends with ``close``, with this process, or with its
    target. Raises NativeError.
    """

    def __new__(cls, program_fd: int, target: int, attach_type: int, flags: int = 0) -> Self: ...
    def run(self) -> None:
        """Lets an iterator pass over everything, once; what it prints is dropped.

        Raises NativeError, and ValueError once closed.
        """

    def close(self) -> None:
        """Detaches. May be called again."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

def enter_network(namespace_fd: int) -> None:
    """Moves the calling thread into the network namespace of a descriptor. Raises NativeError."""

def cgroup_tree() -> int:
    """A descriptor of the root of the cgroup v2 tree, wherever that is mounted, or if it is not.

    The caller closes it. Linux 5.2. Raises NativeError.
    """
