# SPDX-License-Identifier: Apache-2.0
"""The ways of older and barer kernels, taken on this one: the captures are as exact."""

from __future__ import annotations

import pytest
from harness import CAPTURES, joined, selected
from peers import ENDS, assert_calls, assert_exact

pytestmark = CAPTURES

WITHOUT = [
    "uprobe_multi",
    "attach_cookie",
    "bpf_loop",
    "mapping_watch",
    "uprobe_multi attach_cookie",
    "uprobe_multi attach_cookie bpf_loop",
]


def captured(capture, peer, *options, sizes=(1, 100, 16384, 100000), **how):
    program = peer("pair", "--wait-go", sizes=sizes)
    program.wait_for("ready")
    with capture("--pid", program.pid, *options, **how) as run:
        program.run()
        run.finish()
    assert run.summary["lost"] == run.summary["truncated"] == 0
    return program, run.shown()


@pytest.mark.parametrize("names", WITHOUT)
def test_without_a_feature_a_process_is_captured_exactly(capture, peer, names):
    program, shown = captured(capture, peer, env={"ECAPTURE_WITHOUT": names})
    assert_exact(shown, program)


@pytest.mark.parametrize("names", ["uprobe_multi", "uprobe_multi attach_cookie bpf_loop"])
def test_without_a_feature_all_processes_are_captured_exactly(capture, peer, names):
    with capture("--comm", "tlspeer", env={"ECAPTURE_WITHOUT": names}) as run:
        program = peer("pair", "--fork", "2", "--read-ex", "--write-ex").end()
        run.finish()
    assert_exact(run.shown(), program, connections=2)


def test_all_at_once_can_be_told_apart_without_attach_cookies(capture, peer):
    """What ends conversations among them, without which the next would have the last one's ends."""
    program = peer("pair", "--wait-go")
    program.wait_for("ready")
    without = {"ECAPTURE_WITHOUT": "attach_cookie"}
    with capture("--pid", program.pid, probe="all", env=without) as run:
        program.run()
        run.finish()
    assert_exact(run.shown(), program)
    assert not [line for line in run.errors.all() if "left out" in line]


def test_without_the_loop_helper_a_call_of_a_mebibyte_is_whole(capture, peer):
    program, shown = captured(capture, peer, sizes=[1 << 20], env={"ECAPTURE_WITHOUT": "bpf_loop"})
    assert_exact(shown, program)


def assert_exact_without_addresses(shown, program):
    assert {(e.source, e.destination) for e in shown} == {("?", "?")}
    for side, writes, reads in ENDS:
        (done,) = program.of("done", side=side)
        for direction, label in (("write", writes), ("read", reads)):
            (tid,) = done[direction]["tids"]
            stream = selected(shown, tid=tid, direction=direction)
            assert joined(stream) == program.says(label)
            assert_calls(stream, done[direction])


BARE = ["btf", "uprobe_multi attach_cookie bpf_loop btf"]


@pytest.mark.parametrize("names", BARE)
def test_without_types_only_the_addresses_are_missing(capture, peer, names):
    program, shown = captured(capture, peer, env={"ECAPTURE_WITHOUT": names})
    assert_exact_without_addresses(shown, program)


def test_types_that_are_not_wanted_are_not_used(capture, peer):
    program, shown = captured(capture, peer, "--btf", "2")
    assert_exact_without_addresses(shown, program)


@pytest.mark.needs("program:prlimit")
def test_a_small_limit_of_locked_memory(capture, peer):
    program, shown = captured(capture, peer, prefix=("prlimit", "--memlock=65536:65536"))
    assert_exact(shown, program)


@pytest.mark.needs("program:unshare")
def test_without_tracefs_debugfs_and_bpffs(capture, peer):
    hidden = "/sys/kernel/tracing /sys/kernel/debug /sys/fs/bpf"
    script = f'for d in {hidden}; do [ ! -d $d ] || mount -t tmpfs none $d; done; exec "$0" "$@"'
    program, shown = captured(capture, peer, prefix=("unshare", "-m", "sh", "-c", script))
    assert_exact(shown, program)
