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
    no bpf_loop. ``assume`` takes the place of both where returns may not be probed. ``sites``:
    returns are probed at instructions that were found in the file, and nowhere else. The attach
    cookie (ROW in such names) is the row of the hook or, ``by_file``, that of the file in a table
    of the object's own. ``rowless`` programs do not ask for it, or can do without.
    """

    object: str
    enter: str = ""
    leave: str = ""
    leave_bounded: str = ""
    assume: str = ""
    sites: bool = False
    by_file: bool = False
    rowless: bool = False


FAMILIES = {
    Shape.PLAINTEXT: Family(
        "plaintext", "call_enter", "call_leave", "call_leave_bounded", "call_assume"
    ),
    Shape.DESCRIPTOR: Family("plaintext", "call_enter"),
    Shape.END: Family("plaintext", "call_enter"),
    Shape.PACKET: Family("plaintext", "call_enter", "call_leave", "call_leave_bounded"),
    Shape.PACKET_GET: Family("plaintext", "call_enter", "call_leave", "call_leave_bounded"),
    Shape.COVER: Family("plaintext", "call_enter", "call_leave", "call_leave_bounded"),
    Shape.BEGIN: Family("plaintext", leave="call_begin"),
    Shape.GO_READ: Family(
        "gotls", "go_read_enter", "go_return", "go_return_bounded", sites=True, rowless=True
    ),
    Shape.GO_WRITE: Family(
        "gotls", "go_write_enter", "go_return", "go_return_bounded", sites=True, rowless=True
    ),
    Shape.GO_END: Family("gotls", "go_end", rowless=True),
    Shape.GO_STACK_READ: Family(
        "gotls",
        "go_stack_read_enter",
        "go_stack_read_return",
        "go_stack_read_return_bounded",
        sites=True,
        rowless=True,
    ),
    Shape.GO_STACK_WRITE: Family(
        "gotls",
        "go_stack_write_enter",
        "go_stack_write_return",
        "go_stack_write_return_bounded",
        sites=True,
        rowless=True,
    ),
    Shape.GO_STACK_END: Family("gotls", "go_stack_end", rowless=True),
    Shape.RUST_ENCRYPT: Family("rustls", "rust_encrypt", rowless=True),
    Shape.RUST_DECRYPT: Family("rustls", "rust_decrypt", "rust_decrypted", rowless=True),
    Shape.RUST_DECRYPT_OLDER: Family(
        "rustls", "rust_decrypt", "rust_decrypted_older", rowless=True
    ),
    Shape.SERVED_READ: Family("pgwire", "served_read_enter", "served_read_leave", rowless=True),
    Shape.SERVED_WRITE: Family("pgwire", "served_write_enter", "served_write_leave", rowless=True),
    Shape.SERVED_INNER_READ: Family(
        "pgwire", "served_inner_enter", "served_inner_leave", rowless=True
    ),
    Shape.SECRET: Family("secrets", "secret_log", by_file=True),
    Shape.MASTER: Family("secrets", "master_enter", "master_leave", by_file=True),
    Shape.KEPT: Family("secrets", "secrets_kept", by_file=True),
    Shape.NSS_SECRET: Family("nss", "nss_log", by_file=True),
    Shape.NSS_VALUE: Family("nss", "nss_value", by_file=True),
    Shape.TOLD: Family("told", "secret_told", by_file=True),
    Shape.DISPATCH: Family("dispatch", "dispatch_enter", "dispatch_leave", by_file=True),
    Shape.LOGIN: Family("dispatch", "login_enter", "login_leave", by_file=True),
    Shape.SESSION_END: Family("dispatch", "session_ends", by_file=True),
    Shape.ANSWER_OK: Family("dispatch", "answer_ok", rowless=True),
    Shape.ANSWER_OK_OF: Family("dispatch", "answer_ok_of", rowless=True),
    Shape.ANSWER_OK_MARKED: Family("dispatch", "answer_ok_marked", rowless=True),
    Shape.ANSWER_ERROR: Family("dispatch", "answer_error", rowless=True),
    Shape.ANSWER_ERROR_OF: Family("dispatch", "answer_error_of", rowless=True),
    Shape.ANSWER_END: Family("dispatch", "answer_end", rowless=True),
    Shape.PREPARED_ANSWER: Family("dispatch", "prepared_answer", rowless=True),
    Shape.PREPARED_OBJECT: Family("dispatch", "prepared_object", rowless=True),
    Shape.SHELL_READ: Family("shell", "shell_read", by_file=True),
    Shape.SHELL_PARSED: Family("shell", leave="shell_parsed", by_file=True),
    Shape.SHELL_LINE: Family("shell", leave="shell_line", by_file=True),
    Shape.SHELL_EXPAND: Family("shell", "shell_expand", by_file=True),
    Shape.SHELL_EXPANDED: Family("shell", leave="shell_expanded", by_file=True),
    Shape.SHELL_TAKEN: Family("shell", "shell_taken", by_file=True),
    Shape.SHELL_STRING: Family("shell", "shell_string", by_file=True),
    Shape.SHELL_STRUNG: Family("shell", leave="shell_strung", by_file=True),
    Shape.SHELL_STEP: Family("shell", "shell_step", by_file=True),
    Shape.SHELL_EXECUTE: Family("shell", "shell_execute", by_file=True),
    Shape.SHELL_EXECUTED: Family("shell", leave="shell_executed", by_file=True),
    Shape.SHELL_ASH_READ: Family("ash", "ash_read", by_file=True),
    Shape.SHELL_ASH_PARSED: Family("ash", leave="ash_parsed", by_file=True),
    Shape.SHELL_ASH_LINE: Family("ash", "ash_line", by_file=True),
    Shape.SHELL_ASH_LOOPED: Family("ash", leave="ash_looped", by_file=True),
    Shape.SHELL_FISH_RUN: Family("fish", "fish_run", by_file=True),
    Shape.SHELL_FISH_RAN: Family("fish", "fish_ran", by_file=True, rowless=True),
    Shape.SHELL_FISH_NEXT: Family("fish", "fish_next", by_file=True, rowless=True),
    Shape.SHELL_FISH_RETURNED: Family("fish", leave="fish_returned", by_file=True),
    Shape.SHELL_FISH_STATUS: Family("fish", "fish_status", by_file=True),
}


# Programs that see socket calls made inside calls of a library.
_SOCKET_CALLS = {
    "plaintext": ["socket_send", "socket_receive"],
    "gotls": ["go_socket_send", "go_socket_receive"],
}


def objects(shapes: Iterable[Shape]) -> list[str]:
    """The objects to load for these shapes, each once."""
    wanted = dict.fromkeys(FAMILIES[shape].object for shape in shapes)
    if wanted.keys() & {"ash", "fish"}:
        wanted["shell"] = None  # which sees the ends of shells
    return [*wanted, PROCESS]


def host_programs(name: str, *, follow: bool) -> list[str]:
    """Programs of an object that watch the host as a whole; they read kernel types (BTF)."""
    if not feature("btf"):
        return []
    if name in _SOCKET_CALLS:
        programs = _SOCKET_CALLS[name]
        if feature("tp_btf:sock_send_length"):
            return programs
        if feature("kprobe"):
            return [f"{program}_kprobe" for program in programs]
    if name == "rustls" and feature("tp_btf:sock_send_length"):
        return ["rust_socket_send", "rust_socket_receive", "rust_socket_state"]
    if name == PROCESS and feature("tp_btf:sched_process_exit"):
        return ["process_exit", "process_exec", *(["process_fork"] if follow else [])]
    if name == "shell" and feature("tp_btf:sched_process_exit"):
        return ["shell_exit", "shell_exec"]
    return []
