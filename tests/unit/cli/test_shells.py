# SPDX-License-Identifier: Apache-2.0
"""Which files are hooked for those that are named."""

import shutil

import pytest

from ecapture.cli.shells import files_of
from ecapture.errors import TargetNotFound

BASH = shutil.which("bash")


def test_nothing_named_is_everything():
    assert files_of((), ()) == ()


def test_a_shell_brings_its_editor(tmp_path):
    files = files_of((BASH,), ())
    assert files[0] == BASH
    assert all("libreadline" in file for file in files[1:])
    absent = str(tmp_path / "bash")
    assert files_of((absent,), ()) == (absent,)  # it is refused where it is opened


def test_an_editor_brings_its_shell(monkeypatch):
    monkeypatch.setenv("SHELL", "/opt/own/bash")
    assert files_of((), ("/lib/libreadline.so.8",)) == ("/opt/own/bash", "/lib/libreadline.so.8")
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert files_of((), ("/lib/libreadline.so.8",)) == (BASH, "/lib/libreadline.so.8")
    assert files_of(("/b",), ("/r",)) == ("/b", "/r")


def test_no_bash_at_all(monkeypatch):
    monkeypatch.setenv("SHELL", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TargetNotFound, match="bash"):
        files_of((), ("/r",))
