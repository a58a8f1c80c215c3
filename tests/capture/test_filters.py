# SPDX-License-Identifier: Apache-2.0
"""Whom to watch and how much to keep: what was not asked for is not shown."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from harness import CAPTURES, DEADLINE, joined, parse_text
from peers import assert_exact, stream_of
from probed import is_probed

from ecapture.binary.process import with_descendants
from ecapture.config import CaptureConfig, Scope

pytestmark = CAPTURES
NOBODY = 65534


def play(run, *peers):
    for program in peers:
        program.run()
    run.finish()


@pytest.fixture
def waiting(peer):
    """``waiting(...)`` starts a pair that waits for the word."""

    def start(*words, **how):
        program = peer("pair", "--wait-go", *words, **how)
        program.wait_for("ready")
        return program

    return start


def test_only_the_chosen_processes_are_shown_and_probed(capture, waiting):
    first, second, other = waiting(), waiting(), waiting()
    with capture("--pid", first.pid, "--pid", second.pid) as run:
        assert [is_probed(p.pid) for p in (first, second, other)] == [True, True, False]
        play(run, other, first, second)
    assert_exact(run.shown(), first)
    assert_exact(run.shown(), second)
    assert {event.pid for event in run.events} == {first.pid, second.pid}


AFTER_THE_WORD = 'read word; "$0" "$@"; exit $?'


@pytest.mark.needs("tp_btf:sched_process_exit")
def test_descendants_are_followed_on_demand(capture, peer):
    # The shell is what is watched; the program is its child, born during the capture.
    shell = peer("pair", "--fork", "2", prefix=("sh", "-c", AFTER_THE_WORD))
    other = peer("pair", prefix=("sh", "-c", AFTER_THE_WORD))
    with capture("--pid", shell.pid, "--follow") as run:
        for program in (other, shell):
            program.go()
            program.end()
        run.finish()
    assert_exact(run.shown(), shell, connections=2)
    assert {event.pid for event in run.events} == {done["pid"] for done in shell.of("done")}


# Has one child, which has a child every millisecond until a file is there; they end with its input.
BREEDER = """
import os, select, sys
if os.fork():
    os.wait()
    sys.exit()
print("ready", flush=True)
born = 0
while not os.path.exists(sys.argv[1]) and born < 2000:
    select.select([], [], [], 0.001)
    if not os.fork():
        os.read(0, 1)
        os._exit(0)
    born += 1
print(born, flush=True)
os.read(0, 1)
"""


@pytest.mark.needs("tp_btf:sched_process_exit")
def test_nobody_is_missed_who_is_born_while_following_begins(watch, tmp_path):
    enough = tmp_path / "enough"
    program = subprocess.Popen(
        [sys.executable, "-c", BREEDER, enough], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert program.stdout.readline() == b"ready\n"
        run = watch(CaptureConfig(scope=Scope(pids=(program.pid,), follow=True)))
        enough.touch()
        born = int(program.stdout.readline())
        family = with_descendants([program.pid])
        assert len(family) == born + 2
        known = run.capture._programs.maps["pids"].keys()
        assert family - {int.from_bytes(key, "little") for key in known} == set()
    finally:
        program.communicate(timeout=DEADLINE)


def test_descendants_are_not_followed_unasked(capture, peer):
    shell = peer("pair", prefix=("sh", "-c", AFTER_THE_WORD))
    with capture("--pid", shell.pid) as run:
        shell.go()
        shell.end()
        run.finish()
    assert run.events == []


@pytest.mark.needs("program:setpriv")
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_processes_of_one_user(capture, waiting, uid):
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    programs = {0: waiting(), NOBODY: waiting(prefix=as_nobody)}
    with capture("--uid", uid) as run:
        play(run, *programs.values())
    chosen = programs.pop(uid)
    (other,) = programs.values()
    assert_exact(run.shown(), chosen)
    assert run.shown(pid=other.pid) == []


def test_processes_of_one_name(capture, waiting, tlspeer, open_folder):
    renamed = shutil.copy(tlspeer, open_folder / "other-name")
    chosen, other = waiting(program=renamed), waiting()
    with capture("--comm", "other-name") as run:
        play(run, other, chosen)
    assert_exact(run.shown(), chosen)
    assert {event.comm for event in run.shown()} == {"other-name"}


@pytest.fixture
def cgroups(tmp_path):
    """A cgroup with one below it, in a mount of our own: wherever the host has mounted its."""
    root = tmp_path / "cgroups"
    root.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", root], check=True)
    outer = root / f"ecapture-{root.parent.name}"
    try:
        (outer / "inner").mkdir(parents=True)
        yield outer
        (outer / "inner").rmdir()
        outer.rmdir()
    finally:
        subprocess.run(["umount", root], check=True)


def test_processes_of_a_cgroup_and_those_below(capture, waiting, cgroups):
    joins = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    within = waiting(prefix=("sh", "-c", joins, cgroups))
    below = waiting(prefix=("sh", "-c", joins, cgroups / "inner"))
    outside = waiting()
    with capture("--cgroup_path", cgroups) as run:
        play(run, outside, within, below)
    assert_exact(run.shown(), within)
    assert_exact(run.shown(), below)
    assert run.shown(pid=outside.pid) == []


def test_filters_of_two_kinds_are_joined_by_and(capture, waiting):
    program = waiting()
    with capture("--pid", program.pid, "--uid", NOBODY) as run:
        play(run, program)
    assert run.events == []


@pytest.mark.parametrize("limit", [100, 20000])
def test_long_calls_are_cut_with_a_mark(capture, waiting, limit):
    program = waiting()
    with capture("--pid", program.pid, "--truncate", limit) as run:
        play(run, program)
    (client,) = program.of("done", side="client")
    said, at = program.says("c"), 0
    for event in stream_of(run.shown(), client, "write"):
        start = at + event.call_offset
        assert event.payload == said[start : start + len(event.payload)]
        assert event.call_offset + len(event.payload) <= limit
        assert event.missing == ("truncated" if event.length > len(event.payload) else "")
        if event.call_offset + event.length == event.call_length:
            at += event.call_length
    assert at == len(said)
    # Of every call that was longer, by whichever side, one piece says so.
    marked = run.shown(missing="truncated")
    assert run.summary["truncated"] == len(marked)
    assert {event.call_length > limit for event in marked} == {True}
    assert run.summary["lost"] == 0


_DUMPED = re.compile(r"^[0-9a-f]{8}  (?P<hex>[0-9a-f ]{48})  \|.{1,16}\|$")


def test_hexadecimal_dumps_have_every_byte(capture, waiting, tmp_path):
    program = waiting(sizes=[100])
    with capture("--pid", program.pid, "--hex", output=str(tmp_path / "dump")) as run:
        play(run, program)
    blocks = re.split(r"^--- .*\n", (tmp_path / "dump").read_text(), flags=re.MULTILINE)[1:]
    found = [
        b"".join(bytes.fromhex(_DUMPED.match(line)["hex"]) for line in block.splitlines())
        for block in blocks
    ]
    assert sorted(found) == sorted([program.says("c"), program.says("s")] * 2)


def test_standard_output_carries_data_only(capture, waiting, tmp_path):
    program = waiting()
    with (
        (tmp_path / "stdout").open("wb") as stdout,
        capture("--pid", program.pid, output=None, stdout=stdout) as run,
    ):
        play(run, program)
    events = parse_text((tmp_path / "stdout").read_bytes())
    assert_exact(events, program)
    assert run.summary["events"] == len(events)
    assert run.summary["bytes"] == len(joined(events))
    assert run.summary["flows"] == 2
    assert run.summary["truncated"] == 0
