# SPDX-License-Identifier: Apache-2.0
"""Classic packet filters, as libpcap makes them, translated for the kernel's tc hook.

A classic filter cannot be attached where we capture, so each of its instructions becomes a few of
eBPF's: A lives in r7, X in r8, the frame in r6, the scratch memory on the stack. What the filter
accepts is handed on by a tail call; on all else this program has no opinion.

Sources: the instructions of both are described in the kernel's Documentation/networking/filter.rst
and Documentation/bpf/standardization/instruction-set.rst, the loads that are no loads (SKF_AD_) in
UAPI linux/filter.h, the fields of a frame in struct __sk_buff of UAPI linux/bpf.h.

Invariants: every load is checked by the helper that does it, and one beyond the frame's end rejects
the frame, as in the kernel's own interpreter; jumps only go forward, so every program ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from ecapture.errors import UsageError


class Instruction(NamedTuple):
    """One classic instruction: struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


# registers
_R0, _R1, _R2, _R3, _R4, _FRAME, _A, _X, _STACK = 0, 1, 2, 3, 4, 6, 7, 8, 10
# where on the stack: what was loaded last, and the 16 words of scratch memory
_LOADED, _MEMORY, _WORDS = -8, -72, 16

# classes, sizes and modes, which both languages share
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_W, _H, _B = 0x00, 0x08, 0x10
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
_BYTES: Final = {_W: 4, _H: 2, _B: 1}
_BY_X = 0x08
_DIV, _NEG, _MOD, _JA, _JEQ, _JGT, _JNE = 0x30, 0x80, 0x90, 0x00, 0x10, 0x20, 0x50
_TXA, _RETURN_A = 0x80, 0x10
# of eBPF
_MOV64, _MOV32, _ADD64, _ADD32 = 0xB7, 0xB4, 0x07, 0x04
_REGISTER = 0x08
_TO_BIG_ENDIAN, _CALL, _EXIT, _LOAD_MAP = 0xDC, 0x85, 0x95, 0x18
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD
_SKB_LOAD_BYTES, _TAIL_CALL = 26, 12
_LONGEST_JUMP = 32767
_NEXT = -1  # TCX_NEXT, TC_ACT_UNSPEC
_SIGN = 0x80000000

# Offsets that stand for something else: SKF_AD_OFF, SKF_NET_OFF and SKF_LL_OFF, as unsigned words.
_ANCILLARY, _NETWORK, _LINK_LAYER = 0xFFFFF000, 0xFFF00000, 0xFFE00000
_PACKET_TYPE = 4
_OUTGOING = 4  # PACKET_OUTGOING, which only taps see; at our hook nothing says so
_NETWORK_ORDER = True
_FIELDS: Final = {
    # SKF_AD_: (offset in struct __sk_buff, whether two bytes in network order)
    0: (16, _NETWORK_ORDER),  # PROTOCOL
    _PACKET_TYPE: (4, False),  # PKTTYPE
    8: (40, False),  # IFINDEX
    20: (8, False),  # MARK
    24: (12, False),  # QUEUE
    44: (24, False),  # VLAN_TAG
    48: (20, False),  # VLAN_TAG_PRESENT
    60: (28, _NETWORK_ORDER),  # VLAN_TPID
}
_LENGTH_FIELD = 0


def translate(
    program: Iterable[Instruction], *, sent: bool, next_programs: int, index: int
) -> bytes:
    """Instructions of eBPF that accept what ``program`` accepts, for BPF_PROG_TYPE_SCHED_CLS.

    ``sent``: for frames on their way out. Accepted frames go to entry ``index`` of the map of
    programs whose descriptor is ``next_programs``. Raises UsageError for what cannot be done here.
    """
    return _Translation(tuple(program), sent=sent).result(next_programs, index)


class _Translation:
    # ``_code`` has the instructions so far; ``_jumps`` those whose distance is not known yet, with
    # where they lead: the number of a classic instruction, or one of the two below.
    _ACCEPT, _REJECT = -1, -2

    def __init__(self, program: tuple[Instruction, ...], *, sent: bool) -> None:
        self._program = program
        self._sent = sent
        self._code: list[bytes] = []
        self._jumps: list[tuple[int, int]] = []
        self._starts: dict[int, int] = {}
        self._kinds: dict[int, Callable[[int, Instruction], None]] = {
            _LD: self._load,
            _LDX: self._load_index,
            _ST: self._store,
            _STX: self._store,
            _ALU: self._arithmetic,
            _JMP: self._jump,
            _RET: self._return,
            _MISC: self._move,
        }

    def result(self, next_programs: int, index: int) -> bytes:
        self._emit(_MOV64 | _REGISTER, _FRAME, _R1)
        self._emit(_MOV32, _A)
        self._emit(_MOV32, _X)
        for word in sorted(self._words()):
            self._emit(_ST | _MEM | _W, _STACK, offset=_MEMORY + 4 * word)
        for number, instruction in enumerate(self._program):
            self._starts[number] = len(self._code)
            self._kinds[instruction.code & 7](number, instruction)
        if any(target == self._ACCEPT for _at, target in self._jumps):
            self._starts[self._ACCEPT] = len(self._code)
            self._emit(_MOV64 | _REGISTER, _R1, _FRAME)
            self._emit(_LOAD_MAP, _R2, _MAP_FD, k=next_programs)
            self._emit(0)
            self._emit(_MOV32, _R3, k=index)
            self._emit(_CALL, k=_TAIL_CALL)
        self._starts[self._REJECT] = len(self._code)
        self._emit(_MOV32, _R0, k=_NEXT)
        self._emit(_EXIT)
        for at, target in self._jumps:
            self._resolve(at, target)
        return b"".join(self._code)

    def _words(self) -> set[int]:
        # of the scratch memory, that are used: the verifier wants them written before they are read
        used = {
            instruction.k
            for instruction in self._program
            if instruction.code & 7 in (_ST, _STX)
            or (instruction.code & 7 in (_LD, _LDX) and instruction.code & 0xE0 == _MEM)
        }
        if not all(0 <= word < _WORDS for word in used):
            raise _refused("it uses more memory than filters have")
        return used

    def _emit(
        self, code: int, destination: int = 0, source: int = 0, offset: int = 0, k: int = 0
    ) -> None:
        self._code.append(
            bytes((code, destination | source << 4))
            + (offset & 0xFFFF).to_bytes(2, "little")
            + (k & 0xFFFFFFFF).to_bytes(4, "little")
        )

    def _go(self, target: int, code: int = _JA, register: int = 0, k: int = 0) -> None:
        self._jumps.append((len(self._code), target))
        self._emit(_JMP | code, register, k=k)

    def _resolve(self, at: int, target: int) -> None:
        distance = self._starts[target] - at - 1
        if not 0 <= distance <= _LONGEST_JUMP:
            raise _refused("it is too long")
        code = self._code[at]
        self._code[at] = code[:2] + distance.to_bytes(2, "little") + code[4:]

    # --- loads ---

    def _load(self, _number: int, instruction: Instruction) -> None:
        mode, size = instruction.code & 0xE0, instruction.code & 0x18
        if mode == _IMM:
            self._emit(_MOV32, _A, k=instruction.k)
        elif mode == _LEN:
            self._emit(_LDX | _MEM | _W, _A, _FRAME, offset=_LENGTH_FIELD)
        elif mode == _MEM:
            self._emit(_LDX | _MEM | _W, _A, _STACK, offset=_MEMORY + 4 * instruction.k)
        elif mode == _ABS and instruction.k >= _ANCILLARY:
            self._load_field(instruction.k - _ANCILLARY)
        elif mode in (_ABS, _IND):
            self._load_bytes(instruction.k, size, _A, indexed=mode == _IND)
        else:
            raise _refused(f"an instruction of it is not known (0x{instruction.code:02x})")

    def _load_index(self, _number: int, instruction: Instruction) -> None:
        mode = instruction.code & 0xE0
        if mode == _IMM:
            self._emit(_MOV32, _X, k=instruction.k)
        elif mode == _LEN:
            self._emit(_LDX | _MEM | _W, _X, _FRAME, offset=_LENGTH_FIELD)
        elif mode == _MEM:
            self._emit(_LDX | _MEM | _W, _X, _STACK, offset=_MEMORY + 4 * instruction.k)
        elif mode == _MSH:
            # the length of an IPv4 header: X = 4 * (P[k] & 15)
            self._load_bytes(instruction.k, _B, _X, indexed=False)
            self._emit(0x54, _X, k=15)
            self._emit(0x64, _X, k=2)
        else:
            raise _refused(f"an instruction of it is not known (0x{instruction.code:02x})")

    def _load_field(self, number: int) -> None:
        if number not in _FIELDS:
            raise _refused("it asks for something that is not known of packets here")
        if number == _PACKET_TYPE and self._sent:
            self._emit(_MOV32, _A, k=_OUTGOING)
            return
        offset, swapped = _FIELDS[number]
        self._emit(_LDX | _MEM | _W, _A, _FRAME, offset=offset)
        if swapped:
            self._emit(_TO_BIG_ENDIAN, _A, k=16)

    def _load_bytes(self, offset: int, size: int, register: int, *, indexed: bool) -> None:
        if _LINK_LAYER <= offset < _NETWORK and not indexed:
            offset -= _LINK_LAYER
        if offset >= _SIGN:
            raise _refused("it looks before the beginning of packets")
        self._emit(_MOV64 | _REGISTER, _R1, _FRAME)
        self._emit(_MOV32, _R2, k=offset)
        if indexed:
            self._emit(_ADD32 | _REGISTER, _R2, _X)
            # a sum beyond 32 bits is beyond the frame, as in libpcap's interpreter
            self._jumps.append((len(self._code), self._REJECT))
            self._emit(_JMP | _JGT | _REGISTER, _X, _R2)
        self._emit(_MOV64 | _REGISTER, _R3, _STACK)
        self._emit(_ADD64, _R3, k=_LOADED)
        self._emit(_MOV32, _R4, k=_BYTES[size])
        self._emit(_CALL, k=_SKB_LOAD_BYTES)
        self._go(self._REJECT, _JNE, _R0)
        self._emit(_LDX | _MEM | size, register, _STACK, offset=_LOADED)
        if size != _B:
            self._emit(_TO_BIG_ENDIAN, register, k=8 * _BYTES[size])

    # --- the rest ---

    def _store(self, _number: int, instruction: Instruction) -> None:
        source = _A if instruction.code & 7 == _ST else _X
        self._emit(_STX | _MEM | _W, _STACK, source, offset=_MEMORY + 4 * instruction.k)

    def _arithmetic(self, _number: int, instruction: Instruction) -> None:
        operation = instruction.code & 0xF0
        if operation == _NEG:
            self._emit(_ALU | _NEG, _A)
        elif instruction.code & _BY_X:
            if operation in (_DIV, _MOD):
                self._go(self._REJECT, _JEQ, _X)
            self._emit(_ALU | operation | _REGISTER, _A, _X)
        else:
            self._emit(_ALU | operation, _A, k=instruction.k)

    def _jump(self, number: int, instruction: Instruction) -> None:
        operation = instruction.code & 0xF0
        following = number + 1
        if operation == _JA:
            self._go(following + instruction.k)
            return
        if instruction.code & _BY_X or instruction.k >= _SIGN:
            # constants are signed, and compared at 64 bits
            if not instruction.code & _BY_X:
                self._emit(_MOV32, _R2, k=instruction.k)
            source = _X if instruction.code & _BY_X else _R2
            self._jumps.append((len(self._code), following + instruction.jt))
            self._emit(_JMP | operation | _REGISTER, _A, source)
        else:
            self._go(following + instruction.jt, operation, _A, instruction.k)
        if instruction.jf:
            self._go(following + instruction.jf)

    def _return(self, _number: int, instruction: Instruction) -> None:
        if instruction.code & 0x18 == _RETURN_A:
            self._go(self._ACCEPT, _JNE, _A)
            self._go(self._REJECT)
        else:
            self._go(self._ACCEPT if instruction.k else self._REJECT)

    def _move(self, _number: int, instruction: Instruction) -> None:
        if instruction.code & 0xF8 == _TXA:
            self._emit(_MOV64 | _REGISTER, _A, _X)
        else:
            self._emit(_MOV64 | _REGISTER, _X, _A)


def _refused(why: str) -> UsageError:
    return UsageError(
        option="packet filter",
        problem=f"cannot run in the kernel: {why}",
        hint="capture with a simpler filter, and filter the file afterwards",
    )
