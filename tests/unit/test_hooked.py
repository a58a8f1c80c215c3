# SPDX-License-Identifier: Apache-2.0
"""Which files are hooked when. That probes are where they should be is shown in capture/."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from ecapture.errors import AttachRefused, TargetNotFound
from ecapture.hooked import HookedFiles, Key, Seen
from ecapture.kernel.attach import Attached, Place

DEADLINE = 30
PLACES = (Place(0, 0x1000),)


class Link:
    """A link that knows whether it is closed."""

    def __init__(self):
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


class Programs:
    """What would plant the probes."""

    def __init__(self):
        self.links = []
        self.refuses = False

    def attach(self, path, places, pid, *, returns):
        if self.refuses:
            raise AttachRefused(hook=path, reason="it is a test")
        self.links.append(Link())
        return Attached(path, len(places), (self.links[-1],))


@pytest.fixture
def programs():
    return Programs()


@pytest.fixture
def told():
    return {"gone": [], "changed": [], "any": threading.Event()}


@pytest.fixture
def hooked(programs, told):
    def changed(reach):
        told["changed"].append(reach.name)
        told["any"].set()

    files = HookedFiles(programs, told["gone"].append, changed)
    yield files
    files.close()


@pytest.fixture
def file(tmp_path):
    return Path(shutil.copy("/bin/true", tmp_path / "file"))


def hook(hooked, file, *, keys=False, **how):
    status = file.stat()
    key = Key(status.st_dev, status.st_ino, 0, keys)
    seen = Seen(how.get("modified_ns", status.st_mtime_ns), str(file))
    return key, hooked.hook(key, str(file), seen, PLACES, returns=True)


def test_a_file_is_hooked_once_for_each_purpose(hooked, programs, file):
    key, functions = hook(hooked, file)
    assert functions == 1
    assert hook(hooked, file) == (key, 0)
    assert hook(hooked, file, keys=True)[1] == 1
    assert hooked.describe() == "2 functions in 1 files"
    assert len(programs.links) == 2
    hooked.close()
    assert all(link.closed.is_set() for link in programs.links)
    assert not hooked.has(key)
    assert hook(hooked, file)[1] == 0


def test_what_is_not_as_it_was_seen_is_refused(hooked, programs, file):
    with pytest.raises(TargetNotFound, match="as it was"):
        hook(hooked, file, modified_ns=1)
    with pytest.raises(TargetNotFound):
        hooked.hook(Key(1, 2, 0, keys=False), "/nonexistent", Seen(0, "x"), PLACES, returns=True)
    assert programs.links == []


def test_what_was_refused_keeps_nobody_waiting(hooked, programs, file):
    programs.refuses = True
    with pytest.raises(AttachRefused):
        hook(hooked, file)
    os.truncate(file, 0)


def test_the_probes_are_out_before_it_is_written(hooked, programs, file, told):
    key, _functions = hook(hooked, file)
    with file.open("r+b"):
        assert programs.links[0].closed.is_set()
        assert not hooked.has(key)
        assert told["gone"] == [key]
        assert told["changed"] == []
    assert told["any"].wait(DEADLINE)
    assert told["changed"] == [str(file)]
    assert hook(hooked, file) == (key, 1)


def test_a_file_that_is_open_for_writing_is_hooked_later(hooked, programs, file, told):
    with file.open("r+b"):
        key, functions = hook(hooked, file)
        assert functions == 0
        assert hook(hooked, file, keys=True)[1] == 0
        assert programs.links == []
        assert not told["any"].is_set()
    assert told["any"].wait(DEADLINE)
    assert told["changed"] == [str(file)]
    assert hook(hooked, file) == (key, 1)


def test_what_nobody_can_get_at_is_let_go(hooked, programs, file, told):
    key, _functions = hook(hooked, file)
    file.unlink()
    assert programs.links[0].closed.wait(DEADLINE)
    assert told["gone"] == [key]
    assert not hooked.has(key)
    assert hooked.describe() == "0 functions in 0 files"
