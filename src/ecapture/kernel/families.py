# SPDX-License-Identifier: Apache-2.0
"""Which kernel programs serve which shape of call: the one table between ``plan`` and ``bpf/``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ecapture._wire import Shape
from ecapture.kernel.feature import feature

PROCESS = "process"
"""The object that every capture loads: processes come and go."""


class Family(NamedTuple):
    """The programs of one shape.

    ``object`` is bpf/OBJECT.bpf.c. ``enter`` runs at the entry of a function; where a kernel has no
    attach cookies and the object has programs called ``enter_ROW``, those do. ``leave`` runs at its
    return, or at return instructions that were found in the file; ``leave_bounded`` where there is
    no bpf_loop. ``assume`` takes the place of both where returns may not be probed. The attach
    cookie (ROW in such names) is the row of the hook or, ``by_file``, that of the file in a table
    of the object's own.
    """

    object: str
    enter: str = ""
    leave: str = ""
    leave_bounded: str = ""
    assume: str = ""
    by_file: bool = False


FAMILIES = {
    Shape.PLAINTEXT: Family(
        "plaintext", "call_enter", "call_leave", "call_leave_bounded", "call_assume"
    ),
    Shape.DESCRIPTOR: Family("plaintext", "call_enter"),
    Shape.END: Family("plaintext", "call_enter"),
    Shape.SECRET: Family("secrets", "secret_log", by_file=True),
    Shape.MASTER: Family("secrets", "master_enter", "master_leave", by_file=True),
    Shape.KEPT: Family("secrets", "secrets_kept", by_file=True),
}


def objects(shapes: Iterable[Shape]) -> list[str]:
    """The objects to load for these shapes, each once."""
    return [*dict.fromkeys(FAMILIES[shape].object for shape in shapes), PROCESS]


def host_programs(name: str, *, follow: bool) -> list[str]:
    """Programs of an object that watch the host as a whole; they read kernel types (BTF)."""
    if not feature("btf"):
        return []
    if name == "plaintext":
        if feature("tp_btf:sock_send_length"):
            return ["socket_send", "socket_receive"]
        if feature("kprobe"):
            return ["socket_send_kprobe", "socket_receive_kprobe"]
    if name == PROCESS and feature("tp_btf:sched_process_exit"):
        return ["process_exit", "process_exec", *(["process_fork"] if follow else [])]
    return []
