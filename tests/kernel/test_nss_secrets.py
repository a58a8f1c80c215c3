# SPDX-License-Identifier: Apache-2.0
"""Which bytes the kernel programs take for a key of NSS, and that they never take others'."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

import pytest
from speaking import Speaker, distinct, settings

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.sites import Chain, How, Library, SecretSites
from ecapture.kernel.attach import Place, Programs
from ecapture.kernel.decode import Decoder
from ecapture.kernel.keys import NSS_LOG, NSS_VALUE, key_hooks, secret_row

pytestmark = pytest.mark.needs("root", "bpf", "ringbuf", "uprobe")
VARIANTS = distinct((), ("uprobe_multi",), ("attach_cookie",))
FUNCTIONS = {NSS_LOG.shape: "tell", NSS_VALUE.shape: "set_value"}
ROW = 5
RANDOM = Chain((16,), 32, How.EVALUATED)
SITES = SecretSites(Library.NSS, None, None, {}, {"client_random": RANDOM}, ())


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keeper") / "keeper"
    source = Path(__file__).parent / "keeper.c"
    words = ["cc", "-O1", "-rdynamic", "-pthread", "-o", path, source]
    subprocess.run(words, check=True, capture_output=True)
    return path


class Kept:
    """Programs attached to the running keeper."""

    def __init__(self, path: Path, keeper: Speaker) -> None:
        self.keeper = keeper
        self.programs = Programs(settings(), key_hooks(("nss",)))
        try:
            self.programs.set_row("secret_rows", ROW, secret_row(SITES))
            with ElfFile(str(path)) as elf:
                places = [
                    Place(
                        row,
                        elf.file_offset(elf.symbol(FUNCTIONS[hook.shape]).address),
                        file_row=ROW,
                    )
                    for row, hook in enumerate(self.programs.hooks)
                    if hook.shape in FUNCTIONS
                ]
            self.attached = self.programs.attach(str(path), places, keeper.pid)
        except BaseException:
            self.programs.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.attached.close()
        self.programs.close()

    def tell(self, *calls: str) -> list[object]:
        """Makes the calls; returns the events that came of them."""
        for call in calls:
            self.keeper.say(*call.split())
        decoder, out = Decoder(0), b""
        while batch := self.programs.ring.drain(1 << 20):
            out += batch
        events = decoder.decode(out)
        assert decoder.malformed == 0
        return events


@pytest.fixture
def keeper(program):
    with Speaker(program) as running:
        yield running


@pytest.fixture
def kept(program, keeper):
    with Kept(program, keeper) as programs:
        keeper.say("random", 7)
        yield programs


def counted(number: int, length: int = 32) -> bytes:
    return bytes((number + n) % 256 for n in range(length))


@pytest.mark.parametrize("absent", VARIANTS, ids=lambda names: "+".join(names) or "all")
def test_the_bytes_of_the_object_with_that_handle(absent, program, keeper, without):
    without(*absent)
    with Kept(program, keeper) as kept:
        keeper.say("random", 7)
        [event] = kept.tell("make 1", "make 2", "make 3", "tell 1002")
    assert (event.label, event.client_random) == ("CLIENT_RANDOM", bytes([7]) * 32)
    assert (event.secret, event.missing) == (counted(2), "")


@pytest.mark.parametrize("length", [1, 32, 48, 64])
def test_each_length(length, kept):
    [event] = kept.tell(f"length {length}", "make 9", "tell 1009")
    assert event.secret == counted(9, length)


@pytest.mark.parametrize("length", [0, 65, 200])
def test_a_length_that_no_secret_has(length, kept):
    [event] = kept.tell(f"length {length}", "make 9", "tell 1009")
    assert (event.secret, event.missing) == (b"", "unreadable")


def test_as_many_as_a_thread_may_make_in_between(kept):
    [event] = kept.tell(*(f"make {number}" for number in range(1, 17)), "tell 1001")
    assert event.secret == counted(1)
    [event] = kept.tell(*(f"make {number}" for number in range(1, 18)), "tell 1001")
    assert (event.secret, event.missing) == (b"", "unreadable")
    assert kept.programs.losses().fault_records == 1


def test_what_an_object_had_before_is_not_its_key(kept):
    """Softoken takes the memory of a dead object for the next one."""
    [event] = kept.tell("make 3", "rename 3", "tell 1003")
    assert event.missing == "unreadable"
    [event] = kept.tell("make 3", "no_bytes 3", "tell 1003")
    assert event.missing == "unreadable"


def test_the_latest_bytes_count_whoever_gave_them(kept):
    [event] = kept.tell("make 3", "length 48", "make_elsewhere 3", "tell 1003")
    assert event.secret == counted(3, 48)


def test_a_key_of_another_thread_is_not_guessed(kept):
    [event] = kept.tell("make 1", "make_elsewhere 2", "tell 1002")
    assert (event.secret, event.missing) == (b"", "unreadable")


def test_only_the_attribute_with_the_bytes_counts(kept):
    [event] = kept.tell("make 4", "other_attribute 4", "tell 1004")
    assert event.secret == counted(4)


def test_a_handle_of_nothing_is_nothing(kept):
    [event] = kept.tell("make 4", "rename 4", "tell 0")
    assert (event.secret, event.missing) == (b"", "unreadable")
    assert kept.tell("tell_nothing 0") == []
