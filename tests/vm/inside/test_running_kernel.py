# SPDX-License-Identifier: Apache-2.0
"""The guest is the one that was asked for, and offers what every kernel of the list must."""

import os
import platform
from pathlib import Path

import pytest


def test_the_kernel_is_the_expected_one():
    assert platform.release() == os.environ["ECAPTURE_GUEST_RELEASE"]


@pytest.mark.parametrize("source", ["uprobe", "kprobe"])
def test_probes_are_a_source_of_perf_events(source):
    device = Path("/sys/bus/event_source/devices") / source
    assert int((device / "type").read_text()) > 0
    assert (device / "format" / "retprobe").read_text().startswith("config:")


def test_type_information_is_there_unless_it_was_taken_away():
    present = Path("/sys/kernel/btf/vmlinux").exists()
    assert present == ("btf" not in os.environ["ECAPTURE_GUEST_WITHOUT"].split())


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/", "overlay"),
        ("/tmp", "tmpfs"),
        ("/sys/fs/bpf", "bpf"),
        ("/sys/fs/cgroup", "cgroup2"),
        ("/sys/kernel/tracing", "tracefs"),
    ],
)
def test_filesystems_are_mounted(directory, kind):
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    kinds = {fields[1]: fields[2] for fields in mounts}
    if directory == "/tmp" and Path.cwd().is_relative_to(directory):
        kind = None  # the checkout is there, so nothing is mounted over it
    assert kinds.get(directory) == kind


def test_the_loopback_device_is_up():
    flags = int(Path("/sys/class/net/lo/flags").read_text(), 16)
    assert flags & 1  # IFF_UP of linux/if.h


@pytest.mark.parametrize("module", ["veth", "sch_ingress", "cls_bpf"])
def test_the_modules_for_packet_capture_are_loaded(module):
    loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    assert module in loaded


def test_the_layer_over_the_root_takes_changes(tmp_path_factory):
    mark = Path("/usr") / tmp_path_factory.mktemp("mark").name
    mark.write_text("only here")
    assert mark.read_text() == "only here"
