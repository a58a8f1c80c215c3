# SPDX-License-Identifier: Apache-2.0
"""Output files are ours alone, and nobody else chooses what we overwrite."""

import os
import stat
import threading
from pathlib import Path

import pytest

from ecapture.errors import SinkError
from ecapture.sinks.file import open_output

STRANGER = 65534


@pytest.fixture(autouse=True)
def no_sudo(monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)


def test_a_new_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "out"
    previous = os.umask(0)
    try:
        os.close(open_output(str(path)))
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_descriptor_is_not_inherited(tmp_path):
    fd = open_output(str(tmp_path / "out"))
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_an_old_file_is_kept_until_something_is_written(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    fd = open_output(str(path), append=True)
    os.write(fd, b"+new")
    os.close(fd)
    assert path.read_text() == "old+new"
    os.close(open_output(str(path)))
    assert path.read_text() == "old+new"


def test_an_own_symbolic_link_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    os.close(open_output(str(tmp_path / "link")))
    assert (tmp_path / "out").exists()


@pytest.mark.needs("root")
@pytest.mark.parametrize("append", [True, False])
def test_a_link_of_another_user_is_refused(tmp_path, append):
    secret = tmp_path / "secret"
    secret.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(secret)
    os.lchown(link, STRANGER, STRANGER)
    with pytest.raises(SinkError, match="symbolic link of another user"):
        open_output(str(link), append=append)
    assert secret.read_text() == "precious"


@pytest.mark.needs("root")
def test_a_file_of_another_user_is_refused_even_behind_our_own_link(tmp_path):
    planted = tmp_path / "planted"
    planted.write_text("theirs")
    os.chown(planted, STRANGER, STRANGER)
    (tmp_path / "link").symlink_to(planted)
    for name in ("planted", "link"):
        with pytest.raises(SinkError, match="of another user"):
            open_output(str(tmp_path / name))
    assert planted.read_text() == "theirs"


@pytest.mark.needs("root")
def test_the_user_who_called_sudo_is_no_stranger(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.touch()
    os.chown(path, STRANGER, STRANGER)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    os.close(open_output(str(path)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "No such file"), (".", "is a directory"), ("no/such/folder", "No such file")],
)
def test_what_cannot_be_a_file_is_refused(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError, match=reason) as caught:
        open_output(name)
    assert caught.value.hint == "choose another file with -w FILE"
    with pytest.raises(SinkError) as caught:
        open_output(name, option="-k")
    assert caught.value.hint == "choose another file with -k FILE"


def test_odd_values_of_the_environment_raise_nothing_foreign(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "no number")
    os.close(open_output(str(tmp_path / "out")))


def test_devices_and_pipes_are_written_to(tmp_path):
    os.close(open_output("/dev/null"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    fd = open_output(str(fifo))
    os.write(fd, b"through")
    os.close(fd)
    reader.join(60)
    assert got == [b"through"]


@pytest.mark.needs("root")
def test_the_caller_s_own_file_in_a_directory_of_everybody(tmp_path, monkeypatch):
    setting = Path("/proc/sys/fs/protected_regular")
    before = setting.read_text()
    tmp_path.chmod(0o1777)
    path = tmp_path / "out"
    path.touch()
    os.chown(path, STRANGER, STRANGER)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    setting.write_text("2")  # as systemd has it
    try:
        os.close(open_output(str(path)))
    finally:
        setting.write_text(before)
