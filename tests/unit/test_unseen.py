# SPDX-License-Identifier: Apache-2.0
"""Why nothing is shown of a file is said once, and to those only who wait for it."""

from __future__ import annotations

import logging
import time

import msgspec
import pytest

from ecapture.binary.library import Library
from ecapture.errors import NotExecutable, TargetNotFound
from ecapture.unseen import Unseen

SHELLS = ("bash", "readline")


def library(kind, reason="it has no names"):
    return Library(
        kind=kind, linkage="executable", how="content", visible=not reason, reason=reason
    )


@pytest.fixture(autouse=True)
def everything_is_heard(caplog):
    caplog.set_level(logging.INFO, "ecapture")


def test_each_file_of_what_is_watched_is_told_of_once(caplog):
    unseen = Unseen(SHELLS)
    for inode in (1, 2, 1):
        unseen.tell((7, inode), f"/bin/bash-{inode}", library("bash"))
    assert caplog.messages == [
        "/bin/bash-1 is not shown: it has no names",
        "/bin/bash-2 is not shown: it has no names",
    ]


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (SHELLS, library("bash", reason="")),
        (SHELLS, library("zsh")),
        (("mysqld",), library("dash")),
        (("openssl", "rustls"), library("rustls")),
    ],
)
def test_nothing_is_said_to_who_does_not_wait_for_it(caplog, kinds, found):
    Unseen(kinds).tell((7, 1), "/bin/x", found)
    assert caplog.messages == []


def test_that_only_typed_commands_are_shown_is_said_to_who_wants_others(caplog):
    by_code = library("bash", reason="")
    for wanted in (False, True, True):
        unseen = Unseen((*SHELLS, "zsh", "fish"), unattended=wanted)
        unseen.tell((7, 1), "/bin/bash-static", by_code)
        unseen.tell((7, 1), "/bin/bash-static", by_code)
        named = msgspec.structs.replace(by_code, functions={"execute_command_internal": 64})
        unseen.tell((7, 2), "/bin/bash", named)
        unseen.tell((7, 3), "/lib/libreadline.so.8", library("readline", reason=""))
        old = msgspec.structs.replace(library("zsh", reason=""), functions={"execstring": 64})
        unseen.tell((7, 4), "/bin/zsh-4", old)
        unseen.tell((7, 5), "/bin/zsh", msgspec.structs.replace(old, functions={"execode": 64}))
        unseen.tell((7, 6), "/bin/fish", library("fish", reason=""))
    said = "is shown; what carries out other commands is not known"
    assert (
        caplog.messages
        == [
            f"/bin/bash-static: only what is typed {said}",
            f"/bin/zsh-4: only what is typed and the argument of -c {said}",
            f"/bin/fish: only what is typed {said}",
        ]
        * 2
    )


def test_a_refusal_is_told_of_once_and_what_is_gone_not_at_all(caplog):
    unseen = Unseen(SHELLS)
    for _ in range(2):
        with unseen.refusals((7, 1, 0, False), "/bin/x"):
            raise NotExecutable(path="/bin/x", reason="is cut")
        with unseen.refusals((7, 2, 0, False), "/bin/y"):
            raise TargetNotFound(looked_for="/bin/y", looked_in="the file system")
    [line] = caplog.messages
    assert line.startswith("/bin/x cannot be observed: ")
    with pytest.raises(ValueError, match="other"), unseen.refusals((7, 3), "/bin/z"):
        raise ValueError("other")


def test_what_passed_before_a_file_was_hooked_is_told_of_once(caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5_000_000_000)
    unseen = Unseen(SHELLS)
    for mapped_ns in (4_950_000_000, 2_600_000_000, 1_000_000_000):
        unseen.tell_late((7, 1, 0, False), "/bin/x", 17, mapped_ns)
    (line,) = caplog.messages
    assert "/bin/x is new " in line
    assert "process 17 " in line
    assert "in the first 2.4 s " in line
