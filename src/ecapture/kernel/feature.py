# SPDX-License-Identifier: Apache-2.0
"""What this kernel and these rights can do, asked of the kernel and never of its version number.

Every question has three answers: yes, no (with the release that has it), or unknown (with the
reason). ``ECAPTURE_WITHOUT=name,name`` makes questions answer no, so that the paths of older
kernels can be taken, and tested, on newer ones.
"""

from __future__ import annotations

import errno
import mmap
import os
import platform
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path

import msgspec

from ecapture.kernel import _native, _network

NOT_PERMITTED = "not permitted to ask"
BTF = Path("/sys/kernel/btf/vmlinux")
_TYPED = {
    "tp_btf:sock_send_length": b"btf_trace_sock_send_length",
    "tp_btf:sched_process_exit": b"btf_trace_sched_process_exit",
    "sock_from_file": b"BPF_FUNC_sock_from_file",
}
# struct btf_header of linux/btf.h: where hdr_len and str_off stand, and its size
_BTF_HEADER, _BTF_STRINGS, _BTF_SIZE = slice(4, 8), slice(16, 20), 24
_PMU = Path("/sys/bus/event_source/devices")
_KPROBE_PROGRAM = 2  # BPF_PROG_TYPE_KPROBE
_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF
_UPROBE_MULTI = 48  # BPF_TRACE_UPROBE_MULTI
_CLASSIFIER_PROGRAM = 3  # BPF_PROG_TYPE_SCHED_CLS
_TCX_INGRESS = 46  # BPF_TCX_INGRESS


class Answer(StrEnum):
    """Three answers."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Feature(msgspec.Struct, frozen=True):
    """One answered question; ``costs`` is what is missing without it, ``remedy`` how to get it."""

    name: str
    answer: Answer
    since: str
    reason: str
    costs: str
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.answer is Answer.YES


def _masked() -> set[str]:
    return set(os.environ.get("ECAPTURE_WITHOUT", "").replace(",", " ").split())


def _instruction(code: int, registers: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    # struct bpf_insn (UAPI linux/bpf.h): opcode, registers, 16 bits of offset, 32 bits of constant
    return (
        bytes((code, registers))
        + offset.to_bytes(2, "little", signed=True)
        + constant.to_bytes(4, "little", signed=True)
    )


_RETURN_0 = _instruction(0xB7) + _instruction(0x95)


def _loads(instructions: bytes, attach_type: int = 0) -> tuple[Answer, str]:
    try:
        os.close(_native.load_program(_KPROBE_PROGRAM, instructions, attach_type))
    except _native.NativeError as error:
        if error.errno == errno.EPERM:
            return Answer.UNKNOWN, NOT_PERMITTED
        return Answer.NO, os.strerror(error.errno or 0)
    return Answer.YES, ""


def _bpf() -> tuple[Answer, str]:
    answer, reason = _loads(_RETURN_0)
    if answer is Answer.NO:
        return Answer.UNKNOWN, reason
    return answer, reason


def _helper(number: int) -> tuple[Answer, str]:
    # Called with registers never set: a verifier that knows the helper refuses them (EACCES), one
    # that does not refuses the helper (EINVAL).
    try:
        os.close(
            _native.load_program(_KPROBE_PROGRAM, _instruction(0x85, constant=number) + _RETURN_0)
        )
    except _native.NativeError as error:
        if error.errno == errno.EACCES:
            return Answer.YES, ""
        if error.errno == errno.EPERM:
            return Answer.UNKNOWN, NOT_PERMITTED
        return Answer.NO, "the verifier does not know it"
    return Answer.YES, ""


def _ringbuf() -> tuple[Answer, str]:
    try:
        os.close(_native.create_map(_RINGBUF, 0, 0, mmap.PAGESIZE))
    except _native.NativeError as error:
        if error.errno == errno.EPERM:
            return Answer.UNKNOWN, NOT_PERMITTED
        return Answer.NO, "the kernel does not know the map type"
    return Answer.YES, ""


def _uprobe_multi() -> tuple[Answer, str]:
    try:
        fd = _native.load_program(_KPROBE_PROGRAM, _RETURN_0, _UPROBE_MULTI)
    except _native.NativeError as error:
        if error.errno == errno.EPERM:
            return Answer.UNKNOWN, NOT_PERMITTED
        return Answer.NO, "the kernel does not know the attach type"
    try:
        # "/" can never be probed: a kernel that got so far as to look at it knows the link type
        _native.link_uprobe_multi(fd, "/", [1]).close()
    except _native.NativeError as error:
        if error.errno == errno.EBADF:
            return Answer.YES, ""
        return Answer.NO, os.strerror(error.errno or 0)
    finally:
        os.close(fd)
    return Answer.UNKNOWN, "the kernel took a link that cannot be"


def _btf() -> tuple[Answer, str]:
    if BTF.is_file() and os.access(BTF, os.R_OK):
        return Answer.YES, ""
    return Answer.NO, f"{BTF} is not there"


def _number(content: bytes) -> int:
    return int.from_bytes(content, sys.byteorder)


@cache
def _typed_names() -> frozenset[bytes]:
    # One pass over the strings for all that is ever asked, in blocks of what the kernel hands out
    # at a time: it has some megabytes of them.
    wanted = {b"\0" + name + b"\0" for name in _TYPED.values()}
    longest = max(map(len, wanted))
    found: set[bytes] = set()
    block = bytearray(longest + mmap.PAGESIZE)
    view = memoryview(block)
    try:
        with BTF.open("rb", buffering=0) as file:
            header = file.read(_BTF_SIZE)
            file.seek(_number(header[_BTF_HEADER]) + _number(header[_BTF_STRINGS]))
            while read := file.readinto(view[longest:]):
                found.update(name for name in wanted if block.find(name, 0, longest + read) >= 0)
                view[:longest] = bytes(view[read : longest + read])
    except OSError:
        return frozenset()
    return frozenset(name.strip(b"\0") for name in found)


def _typed(name: str) -> Callable[[], tuple[Answer, str]]:
    """Whether its name stands in the kernel's types: what needs types anyhow is asked so."""

    def ask() -> tuple[Answer, str]:
        if not feature("btf"):
            return Answer.NO, "no type information (BTF)"
        if _TYPED[name] in _typed_names():
            return Answer.YES, ""
        return Answer.NO, "the kernel's types do not name it"

    return ask


def _tcx() -> tuple[Answer, str]:
    try:
        fd = _native.load_program(_CLASSIFIER_PROGRAM, _RETURN_0)
    except _native.NativeError as error:
        if error.errno == errno.EPERM:
            return Answer.UNKNOWN, NOT_PERMITTED
        return Answer.NO, os.strerror(error.errno or 0)
    try:
        # no interface has this index: a kernel that looked for it knows the link type
        _network.Attachment(fd, 0x7FFF_FFFF, _TCX_INGRESS).close()
    except _native.NativeError as error:
        if error.errno == errno.ENODEV:
            return Answer.YES, ""
        return Answer.NO, "the kernel does not know the attach type"
    finally:
        os.close(fd)
    return Answer.UNKNOWN, "the kernel took a link that cannot be"


def _pmu(name: str) -> Callable[[], tuple[Answer, str]]:
    def ask() -> tuple[Answer, str]:
        if (_PMU / name).is_dir():
            return Answer.YES, ""
        if not _PMU.is_dir():
            return Answer.UNKNOWN, "/sys is not mounted"
        return Answer.NO, "the kernel was built without it"

    return ask


def _mapping_watch() -> tuple[Answer, str]:
    try:
        watch = _native.MapWatch([0], 1)
    except _native.NativeError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return Answer.UNKNOWN, NOT_PERMITTED
        return Answer.NO, os.strerror(error.errno or 0)
    try:
        return Answer.YES, "" if watch.with_build_ids else "without build ids (5.12)"
    finally:
        watch.close()


_ASKED: dict[str, tuple[Callable[[], tuple[Answer, str]], str, str, str]] = {
    # name: (question, since, what is missing without it, how to get it)
    "bpf": (
        _bpf,
        "4.18",
        "nothing can be captured",
        "run as root, or with CAP_BPF and CAP_PERFMON",
    ),
    "ringbuf": (_ringbuf, "5.8", "nothing can be captured", "a newer kernel"),
    "uprobe": (
        _pmu("uprobe"),
        "4.17",
        "nothing can be captured",
        "a kernel with CONFIG_UPROBE_EVENTS",
    ),
    "uprobe_multi": (
        _uprobe_multi,
        "6.6",
        "attaching and detaching take longer (perf events are used)",
        "a newer kernel",
    ),
    "attach_cookie": (
        lambda: _helper(174),
        "5.15",
        "one program for each hook is loaded",
        "a newer kernel",
    ),
    "bpf_loop": (
        lambda: _helper(181),
        "5.17",
        "single calls are captured up to 16 MiB, the rest is reported as truncated",
        "a newer kernel",
    ),
    "btf": (
        _btf,
        "5.2 with CONFIG_DEBUG_INFO_BTF",
        "no addresses, no --follow, no notice of ended processes",
        "a kernel with CONFIG_DEBUG_INFO_BTF",
    ),
    "tp_btf:sock_send_length": (
        _typed("tp_btf:sock_send_length"),
        "6.3",
        "addresses of sockets the library was not told of come from kprobes; memory BIOs have none",
        "a newer kernel",
    ),
    "tp_btf:sched_process_exit": (
        _typed("tp_btf:sched_process_exit"),
        "5.5",
        "ended processes are noticed late",
        "a kernel with CONFIG_DEBUG_INFO_BTF",
    ),
    "kprobe": (
        _pmu("kprobe"),
        "4.17",
        "on kernels before 6.3, addresses of sockets the library was not told of are missing",
        "a kernel with CONFIG_KPROBE_EVENTS",
    ),
    "tcx": (
        _tcx,
        "6.6",
        "packets are captured by clsact filters, which a killed capture leaves to the next one",
        "a newer kernel",
    ),
    "sock_from_file": (
        _typed("sock_from_file"),
        "5.11 with CONFIG_DEBUG_INFO_BTF",
        "packets of sockets that are older than the capture tell their process late or never",
        "a newer kernel",
    ),
    "mapping_watch": (
        _mapping_watch,
        "3.12",
        "libraries that no process had mapped at start are not noticed",
        "run as root, or with CAP_PERFMON",
    ),
}


@cache
def feature(name: str) -> Feature:
    """The answer for one name of the table, asked once per process."""
    question, since, costs, remedy = _ASKED[name]
    if name in _masked():
        return Feature(name, Answer.NO, since, "masked by ECAPTURE_WITHOUT", costs, remedy)
    answer, reason = question()
    return Feature(name, answer, since, reason, costs, remedy)


def features() -> list[Feature]:
    """All of them, for doctor."""
    return [feature(name) for name in _ASKED]


def machine() -> str:
    """The architecture in the words of the object files: x86_64 or aarch64."""
    return platform.machine()
