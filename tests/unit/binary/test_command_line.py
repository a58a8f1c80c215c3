# SPDX-License-Identifier: Apache-2.0
"""What a command line may come to load is known before it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ecapture.binary import loader
from ecapture.binary.command_line import files_of_command


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with one program, its libraries, and a link that leads nowhere but in there."""
    root = tmp_path / "root"
    for place in loader.closure("/bin/cat"):
        copy = root / place.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place, copy)
    (root / "etc").mkdir()
    shutil.copy(loader.CACHE, root / "etc")
    (root / "usr" / "bin").mkdir(parents=True, exist_ok=True)
    (root / "usr" / "bin" / "program").symlink_to("/bin/cat")
    return root


def test_every_word_may_be_a_program() -> None:
    files = files_of_command(["env", "A=1", "sh", "-c", "exec cat /etc/hostname"])
    names = {Path(place).name for place in files}
    assert {"env", "cat"} <= names
    assert any(name.startswith("libc.so") for name in names)


def test_what_is_no_program_is_passed_over(tmp_path: Path) -> None:
    assert files_of_command([str(tmp_path), "no-such-program", "it's", ""]) == ()


@pytest.mark.needs("root")
@pytest.mark.parametrize("form", ["{}", "--root={}", "-R{}"])
def test_a_directory_may_become_the_root_of_what_follows(tree: Path, form: str) -> None:
    files = files_of_command(["chroot", form.format(tree), "/usr/bin/program"])
    inside = {place for place in files if place.startswith(f"{tree}/")}
    assert str(tree / "bin" / "cat") in inside
    assert any(Path(place).name.startswith("libc.so") for place in inside)
    assert all(Path(place).exists() for place in inside)


@pytest.mark.needs("root")
def test_a_tree_that_cannot_be_looked_into_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "program").write_bytes(b"\x7fELF damaged")
    (tmp_path / "bin" / "program").chmod(0o755)
    files = files_of_command(["chroot", str(tmp_path), "/bin/program"])
    assert not [place for place in files if place.startswith(str(tmp_path))]
