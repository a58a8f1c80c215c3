# SPDX-License-Identifier: Apache-2.0
"""The translation decides as libpcap's own interpreter does, whatever the frame.

Its eBPF is run by a small interpreter here: what the kernel's verifier and JIT make of it is tested
by tests/capture/test_packets_filters.py.
"""

import ctypes
import random

import pytest
from frames import CLIENT, SERVER, Stream, udp

from ecapture.errors import FeatureMissing, UsageError
from ecapture.kernel import expression as compiled_by
from ecapture.kernel.classic import Instruction, translate
from ecapture.kernel.expression import compile_expression

ETHERNET, RAW = 1, 101
MASK = (1 << 64) - 1
LOADS = (0x20, 0x28, 0x30, 0x40, 0x48, 0x50)
JUMPS = (0x10, 0x20, 0x30, 0x40)
ACCEPTED, REJECTED = "accepted", "rejected"
EXPRESSIONS = [
    "tcp port 443",
    "udp portrange 1000-5000 and len > 70",
    "ip host 10.1.2.3 and not tcp",
    "tcp[((tcp[12] & 0xf0) >> 2):2] = 0x1603",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "ip[2:2] - ((ip[0] & 0xf) * 4) > 500 or ip[8] < 3",
    "ip[4:4] = 0xffffffff or ip[16:4] >= 0x80000000",
    "len % 7 = 3 and ip[1] / 3 < 9",
    "ether[0] & 1 = 0 and ip6",
    "ip proto 6 and ip[6:2] & 0x1fff = 0",
]


class Head(ctypes.Structure):
    _fields_ = (("time", ctypes.c_long * 2), ("captured", ctypes.c_uint), ("length", ctypes.c_uint))


@pytest.fixture(scope="module")
def library():
    try:
        return compiled_by._library()
    except FeatureMissing as missing:
        pytest.skip(str(missing))


def interpreted(library, program, frame):
    """What libpcap's interpreter says."""
    table = (compiled_by._Instruction * len(program))(*(tuple(one) for one in program))
    given = compiled_by._Program(len(program), table)
    head = Head((0, 0), len(frame), len(frame))
    kept = library.pcap_offline_filter(ctypes.byref(given), ctypes.byref(head), frame)
    return ACCEPTED if kept else REJECTED


class Machine:
    """As much of eBPF as the translation uses (RFC 9669)."""

    def __init__(self, code, frame, fields=()):
        self.code = [code[at : at + 8] for at in range(0, len(code), 8)]
        self.frame = frame
        self.fields = {0: len(frame), **dict(fields)}
        self.registers = dict.fromkeys(range(11), 0) | {1: "frame", 10: 0}
        self.stack = {}

    def run(self):
        at = 0
        while True:
            code, registers, *_ = one = self.code[at]
            offset = int.from_bytes(one[2:4], "little", signed=True)
            constant = int.from_bytes(one[4:8], "little", signed=True)
            destination, source = registers & 15, registers >> 4
            at += 1
            if code == 0x95:
                assert self.registers[0] == 0xFFFFFFFF  # TCX_NEXT
                return REJECTED
            if code == 0x18:
                at += 1
            elif code == 0x85 and constant == 12:
                return ACCEPTED
            elif code == 0x85:
                self._load_bytes()
            elif code & 7 in (1, 2, 3):
                self._memory(code, destination, source, offset, constant)
            elif code & 7 == 5:
                if self._holds(code, destination, source, constant):
                    at += offset
            else:
                self._arithmetic(code, destination, source, constant)

    def _load_bytes(self):
        assert self.registers[1] == "frame"
        offset, size = self.registers[2], self.registers[4]
        found = self.frame[offset : offset + size]
        whole = len(found) == size
        self.registers[0] = 0 if whole else MASK
        for index, byte in enumerate(found if whole else bytes(size)):
            self.stack[(self.registers[3] + index + (1 << 63)) % (1 << 64) - (1 << 63)] = byte

    def _memory(self, code, destination, source, offset, constant):
        size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
        if code & 7 == 1 and self.registers[source] == "frame":
            self.registers[destination] = self.fields[offset]
        elif code & 7 == 1:
            word = bytes(self.stack[offset + index] for index in range(size))
            self.registers[destination] = int.from_bytes(word, "little")
        else:
            assert destination == 10
            value = self.registers[source] if code & 7 == 3 else constant
            for index, byte in enumerate((value & 0xFFFFFFFF).to_bytes(4, "little")):
                self.stack[offset + index] = byte

    def _holds(self, code, destination, source, constant):
        left = self.registers[destination]
        right = self.registers[source] if code & 8 else constant & MASK
        return {
            0x00: True,
            0x10: left == right,
            0x20: left > right,
            0x30: left >= right,
            0x40: bool(left & right) if code & 0xF0 == 0x40 else False,
            0x50: left != right,
        }[code & 0xF0]

    def _arithmetic(self, code, destination, source, constant):
        wide = code & 7 == 7
        mask = MASK if wide else 0xFFFFFFFF
        left = self.registers[destination]
        right = self.registers[source] if code & 8 else constant & MASK
        operation = code & 0xF0
        if operation == 0xD0:  # to big endian
            size = constant // 8
            self.registers[destination] = int.from_bytes(
                (left & ((1 << constant) - 1)).to_bytes(size, "little"), "big"
            )
            return
        if operation == 0xB0:
            self.registers[destination] = right if right == "frame" else right & mask
            return
        left, right = left & mask, right & mask
        self.registers[destination] = {
            0x00: lambda: left + right,
            0x10: lambda: left - right,
            0x20: lambda: left * right,
            0x30: lambda: left // right if right else 0,
            0x40: lambda: left | right,
            0x50: lambda: left & right,
            0x60: lambda: left << right % 32,
            0x70: lambda: left >> right % 32,
            0x80: lambda: -left,
            0x90: lambda: left % right if right else left,
            0xA0: lambda: left ^ right,
        }[operation]() & mask


def decided(program, frame, **how):
    fields = how.pop("fields", ())
    code = translate(program, sent=how.pop("sent", False), next_programs=5, index=1)
    assert len(code) % 8 == 0
    return Machine(code, frame, fields).run()


def frames():
    """Real frames, the same cut short at every place, and with bytes changed by chance."""
    stream = Stream()
    real = [*stream.handshake(), *stream.say(False, b"\x16\x03\x01" + bytes(600))]
    real += [udp((CLIENT, 2000), (SERVER, 53), bytes(40)), udp((CLIENT, 9), (SERVER, 4999), b"")]
    yield from real
    yield from (real[3][:length] for length in range(60))
    chance = random.Random(1)
    for _ in range(150):
        changed = bytearray(chance.choice(real))
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(min(len(changed), 60))] = chance.choice((0, 1, 6, 0x45, 0xFF))
        yield bytes(changed)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_decide_as_in_libpcap(library, expression):
    program = compile_expression(expression, RAW if "ether" not in expression else ETHERNET)
    for frame in frames():
        given = frame if "ether" in expression else frame[14:]
        assert decided(program, given) == interpreted(library, program, given), given.hex()


def test_every_instruction_of_the_language(library):
    """Programs by chance: loads, arithmetic, scratch memory and jumps."""
    chance = random.Random(2)
    operations = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0)
    for _ in range(300):
        program = [Instruction(0x02, 0, 0, word) for word in range(3)]
        for left in range(12, 0, -1):
            forward = (chance.randrange(left), chance.randrange(left))
            value = chance.choice((0, 1, 3, 14, 31, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            near = chance.randrange(40)
            operation = chance.choice(operations)
            shift = operation in (0x60, 0x70)
            nonzero = value % 31 + 1 if shift else value or 1
            program.append(
                chance.choice(
                    (
                        Instruction(
                            chance.choice((0x20, 0x28, 0x30, 0x40, 0x48, 0x50)), 0, 0, near
                        ),
                        Instruction(chance.choice((0x00, 0x01)), 0, 0, value),
                        Instruction(chance.choice((0x80, 0x81)), 0, 0, 0),
                        Instruction(chance.choice((0x60, 0x61, 0x02, 0x03)), 0, 0, near % 3),
                        Instruction(0xB1, 0, 0, near),
                        Instruction(0x04 | operation, 0, 0, nonzero),
                        Instruction(0x0C | (0x30 if shift else operation), 0, 0, 0),
                        Instruction(0x84, 0, 0, 0),
                        Instruction(
                            0x05 | chance.choice((0x10, 0x20, 0x30, 0x40)), *forward, value
                        ),
                        Instruction(0x0D | chance.choice(JUMPS), *forward, 0),
                        Instruction(chance.choice((0x07, 0x87)), 0, 0, 0),
                    )
                )
            )
        program += [Instruction(0x16, 0, 0, 0)]
        for frame in (bytes(chance.randrange(256) for _ in range(64)), bytes(20)):
            assert decided(program, frame) == interpreted(library, program, frame), program


def test_what_a_frame_does_not_say_comes_from_the_kernel():
    """The loads beyond SKF_AD_OFF (UAPI linux/filter.h)."""
    kept, dropped = Instruction(0x06, 0, 0, 1), Instruction(0x06, 0, 0, 0)

    def asks(number, value):
        load = Instruction(0x20, 0, 0, 0xFFFFF000 + number)
        return [load, Instruction(0x15, 0, 1, value), kept, dropped]

    assert decided(asks(0, 0x0800), b"", fields={16: 0x0008}) == ACCEPTED  # protocol
    assert decided(asks(44, 77), b"", fields={24: 77}) == ACCEPTED  # tag
    assert decided(asks(48, 1), b"", fields={20: 0}) == REJECTED
    assert decided(asks(4, 0), b"", fields={4: 0}) == ACCEPTED  # for us
    assert decided(asks(4, 4), b"", fields={4: 0}, sent=True) == ACCEPTED  # on its way out


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(0x20, 0, 0, 0xFFFFF000 + 52),  # the pay offset: needs another helper
        Instruction(0x20, 0, 0, 0xFFF00000),  # SKF_NET_OFF
        Instruction(0x02, 0, 0, 16),  # beyond the scratch memory
        Instruction(0xA0, 0, 0, 0),  # no such load
        Instruction(0x41, 0, 0, 0),  # nor into X
    ],
)
def test_what_cannot_be_is_refused(instruction):
    with pytest.raises(UsageError) as refused:
        translate([instruction, Instruction(0x06, 0, 0, 1)], sent=False, next_programs=0, index=0)
    assert "packet filter" in str(refused.value)


def test_a_program_that_jumps_too_far_is_refused():
    many = [Instruction(0x28, 0, 0, 12)] * 3999
    with pytest.raises(UsageError):
        translate(
            [Instruction(0x05, 0, 0, 3999), *many, Instruction(0x06, 0, 0, 1)],
            sent=False,
            next_programs=0,
            index=0,
        )
