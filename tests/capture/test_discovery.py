# SPDX-License-Identifier: Apache-2.0
"""Libraries wherever they are: copies, replaced files, mount namespaces, inside executables."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from peers import (
    assert_conversation,
    assert_exact,
    conversations_of,
    installed_libssl,
    mapped_libssl,
    programs,
)
from probed import is_probed

from ecapture.binary import identify as judging
from ecapture.binary.library import Library
from ecapture.config import CaptureConfig, Scope
from ecapture.discovery import Discovery, _Slow
from ecapture.hooked import Key, Seen

pytestmark = CAPTURES


@pytest.fixture
def private_copy(tmp_path):
    """A directory with a libssl of its own: an inode that nobody has mapped before."""
    folder = tmp_path / "private"
    folder.mkdir()
    shutil.copy(installed_libssl(), folder / "libssl.so.3")
    return folder


def test_a_private_copy_that_is_mapped_at_start(capture, peer, private_copy):
    program = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(private_copy)})
    program.wait_for("ready")
    assert str(private_copy) in Path(f"/proc/{program.pid}/maps").read_text()
    with capture() as run:
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


@pytest.mark.needs("mapping_watch")
def test_a_library_that_appears_later(capture, peer, private_copy):
    with capture("-d") as run:
        # It waits before it speaks, as a server does that waits for its first client.
        program = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(private_copy)})
        program.wait_for("ready")
        run.wait_attached(private_copy / "libssl.so.3")
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


def replace(folder):
    """Puts a new file in the place of the library, as a package upgrade does."""
    fresh = folder / "libssl.so.3.new"
    shutil.copy(folder / "libssl.so.3", fresh)
    fresh.rename(folder / "libssl.so.3")


def test_a_library_that_was_replaced_before_the_capture(capture, peer, private_copy):
    program = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(private_copy)})
    program.wait_for("ready")
    replace(private_copy)
    assert "libssl.so.3 (deleted)" in Path(f"/proc/{program.pid}/maps").read_text()
    with capture("--pid", program.pid) as run:
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


def test_a_file_named_by_hand_is_the_one_that_was_looked_into(
    watch, peer, private_copy, monkeypatch
):
    library = private_copy / "libssl.so.3"
    program = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(private_copy)})
    program.wait_for("ready")
    look = judging.identify

    def replaced_meanwhile(elf):
        found = look(elf)
        Path(shutil.copy("/bin/true", private_copy / "other")).rename(library)
        return found

    monkeypatch.setattr(judging, "identify", replaced_meanwhile)
    watching = watch(CaptureConfig(libraries=(str(library),)))
    program.run()
    events = watching.finish()
    for done in program.of("done"):
        (conversation,) = conversations_of(events, done)
        assert_conversation(conversation, done, program)


@pytest.mark.needs("mapping_watch")
def test_a_library_that_is_replaced_during_the_capture(capture, peer, private_copy):
    env = {"LD_LIBRARY_PATH": str(private_copy)}
    old = peer("pair", "--wait-go", env=env)
    old.wait_for("ready")
    with capture("-d") as run:
        replace(private_copy)
        new = peer("pair", "--wait-go", env=env)
        new.wait_for("ready")
        run.wait_attached(private_copy / "libssl.so.3", times=2)  # the old one at start
        old.run()
        new.run()
        run.finish()
    assert_exact(run.shown(), old)
    assert_exact(run.shown(), new)


@pytest.mark.needs("mapping_watch")
def test_a_program_that_is_written_anew_in_its_place(capture, peer, private_copy, open_folder):
    """As a linker does, or where the number of an inode is given to the next file."""
    place = private_copy / "program"
    shutil.copy("/bin/true", place)
    inode = place.stat().st_ino
    with capture("-d") as run:
        subprocess.run([place], check=True)
        # smaller files are looked at first, so this one has its turn behind that one
        other = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(private_copy)})
        run.wait_attached(private_copy / "libssl.so.3")
        shutil.copy(programs.build("tlspeer-static", open_folder / "static"), place)
        assert place.stat().st_ino == inode
        program = peer("pair", "--wait-go", program=place)
        run.wait_attached(place)
        for one in (other, program):
            one.run()
        run.finish()
    assert_exact(run.shown(), other)
    assert_exact(run.shown(), program)


def test_probes_are_out_before_a_file_is_waited_for(watch, peer, monkeypatch):
    """Some files take seconds to look into, and nobody drains the ring at the end meanwhile."""
    within, enough = threading.Event(), threading.Event()

    def read(*_words: object, **_how: object) -> None:
        within.set()
        enough.wait(2 * DEADLINE)

    monkeypatch.setattr(Discovery, "_attach_read", read)
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    run = watch(CaptureConfig(scope=Scope(pids=(program.pid,))))
    assert is_probed(program.pid)
    library = Library(kind="openssl", linkage="shared", how="dynsym", visible=True)
    fd = os.open("/proc/self/exe", os.O_RDONLY)
    keys = (Key(0, 0, 0, keys=True),)
    slow = _Slow(fd, Seen(0, "large"), library, keys, False, None)
    run.capture._discovery._slow.put(slow)
    assert within.wait(DEADLINE)
    with ThreadPoolExecutor(1) as thread:
        finished = thread.submit(run.finish)
        try:
            wait_until(lambda: not is_probed(program.pid), "the end of the probes")
        finally:
            enough.set()
        assert finished.result(DEADLINE) == []
    program.run()


@pytest.mark.needs("program:unshare", "mapping_watch")
@pytest.mark.parametrize("older", [True, False], ids=["older", "newer"])
def test_a_library_of_another_mount_namespace(capture, peer, private_copy, older):
    # Under its usual name, which means another file to everybody else.
    script = f'mount --bind {private_copy / "libssl.so.3"} {installed_libssl()} && exec "$0" "$@"'

    def start():
        # unshare and sh become the program: one process
        program = peer("pair", "--wait-go", prefix=("unshare", "-m", "sh", "-c", script))
        program.wait_for("ready")
        return program

    program = start() if older else None
    with capture("-d") as run:
        program = program or start()
        run.wait_attached(mapped_libssl(program.pid), times=2)
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


@pytest.mark.parametrize(
    "name", ["tlspeer-static", "tlspeer-static-dynsym", "tlspeer-static-symtab"]
)
def test_an_executable_that_names_its_functions(capture, peer, tmp_path_factory, name):
    place = tmp_path_factory.getbasetemp() / "static"
    program = peer("pair", "--wait-go", program=programs.build(name, place))
    program.wait_for("ready")
    with capture("--pid", program.pid) as run:
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


def test_a_stripped_executable_named_by_hand_is_observed(capture, peer, tmp_path_factory):
    path = programs.build("tlspeer-stripped", tmp_path_factory.getbasetemp() / "static")
    program = peer("pair", "--wait-go", program=path)
    program.wait_for("ready")
    with capture("--libssl", path) as run:
        program.run()
        run.finish()
    assert_exact(run.shown(), program)


def test_an_executable_without_tls_is_refused_by_name():
    done = run_ecapture("tls", "--libssl", "/bin/true")
    assert done.returncode == 4
    assert b"/bin/true" in done.stderr
    assert b"ready:" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_library_named_by_hand_is_the_only_one(capture, peer, private_copy):
    own = peer("pair", "--wait-go", env={"LD_LIBRARY_PATH": str(private_copy)})
    other = peer("pair", "--wait-go")
    for program in (own, other):
        program.wait_for("ready")
    with capture("--libssl", private_copy / "libssl.so.3") as run:
        other.run()
        own.run()
        run.finish()
    assert_exact(run.shown(), own)
    assert run.shown(pid=other.pid) == []


def test_a_library_named_by_hand_that_nobody_maps_yet(capture, peer, private_copy):
    with capture("--libssl", private_copy / "libssl.so.3") as run:
        program = peer("pair", env={"LD_LIBRARY_PATH": str(private_copy)}).end()
        run.finish()
    assert_exact(run.shown(), program)
    assert "no process has it mapped yet" in run.stderr
