# SPDX-License-Identifier: Apache-2.0
"""What the loader would do is foretold as ldconfig and ldd say it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecapture.binary.elf import ElfFile
from ecapture.binary.loader import (
    CACHE,
    closure,
    find_program,
    library_search_paths,
    loader_cache,
    resolve_script,
)
from ecapture.errors import NotExecutable, TargetNotFound

Compile = Callable[..., Path]

PLACE = re.compile(r"(?:=> |^\s)(/\S+) \(", re.MULTILINE)


def ldd(path: Path | str) -> set[str]:
    text = subprocess.run(["ldd", str(path)], check=True, capture_output=True, text=True).stdout
    return {os.path.realpath(place) for place in PLACE.findall(text)}


def test_reads_the_cache_as_ldconfig_does() -> None:
    text = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True)
    truth: dict[str, list[str]] = {}
    for name, kind, path in re.findall(r"^\t(\S+) \((.*)\) => (\S+)$", text.stdout, re.MULTILINE):
        if "libc6,x86-64" in kind:
            truth.setdefault(name, []).append(path)
    found = loader_cache()
    assert found.keys() == truth.keys()
    assert {name: set(paths) for name, paths in found.items()} == {
        name: set(paths) for name, paths in truth.items()
    }
    assert "/lib/x86_64-linux-gnu" in library_search_paths()


def test_reads_a_cache_behind_one_of_the_old_layout(tmp_path: Path) -> None:
    strings = b"libx.so.1\0/opt/libx.so.1\0"
    at = 48 + 24
    new = struct.pack("<20sIIB3xI12x", b"glibc-ld.so.cache1.1", 1, len(strings), 2, 0)
    new += struct.pack("<iIIIQ", 0x0303, at, at + 10, 0, 0) + strings
    old = struct.pack("<12sI", b"ld.so-1.7.0", 2) + bytes(24)
    for content in (new, old + new):
        (tmp_path / "cache").write_bytes(content)
        assert loader_cache(tmp_path / "cache") == {"libx.so.1": ("/opt/libx.so.1",)}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(0, 4096),
    changes=st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=8))),
)
def test_survives_any_cache(tmp_path: Path, length: int, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(CACHE.read_bytes()[:length])
    for at, change in changes:
        content[at : at + len(change)] = change
    (tmp_path / "cache").write_bytes(content)
    for paths in loader_cache(tmp_path / "cache").values():
        assert all(path.startswith("/") for path in paths)


def test_has_no_cache_where_there_is_none(tmp_path: Path) -> None:
    assert loader_cache(tmp_path) == {}
    assert loader_cache(tmp_path / "none") == {}


@pytest.mark.parametrize("path", ["/usr/bin/curl", "/usr/bin/node", "/usr/bin/python3"])
def test_foretells_what_ldd_finds(path: str) -> None:
    found = closure(path)
    assert found[0] == path
    assert {os.path.realpath(place) for place in found[1:]} == ldd(path)


def test_follows_run_paths(compile_c: Compile, tmp_path: Path) -> None:
    library = compile_c("int f(void) { return 1; }", "-shared", "-fPIC", name="libown.so")
    here = f"-L{library.parent}"
    for option in (
        f"-Wl,--enable-new-dtags,-rpath,{library.parent}",
        f"-Wl,--disable-new-dtags,-rpath,{library.parent}",
        "-Wl,-rpath,$ORIGIN/../" + library.parent.name,
        "-Wl,-rpath,${ORIGIN}/../" + library.parent.name,
    ):
        program = compile_c("int f(void); int main(void) { return f(); }", here, "-lown", option)
        places = {os.path.realpath(place) for place in closure(str(program))[1:]}
        assert places == ldd(program)
        assert str(library) in places
    plain = compile_c("int f(void); int main(void) { return f(); }", here, "-lown")
    assert not any(place.endswith("libown.so") for place in closure(str(plain)))
    chosen = closure(str(plain), [str(tmp_path), str(library.parent)])
    assert str(library) in chosen


def test_survives_libraries_that_need_each_other(compile_c: Compile) -> None:
    first = compile_c("int f(void) { return 1; }", "-shared", "-fPIC", name="liba.so")
    here = (f"-L{first.parent}", "-Wl,--no-as-needed,-rpath,$ORIGIN")
    text = "int g(void) { return 1; }"
    second = compile_c(text, "-shared", "-fPIC", *here, "-la", "-Wl,-soname,liba.so")
    second.rename(first.parent / "libb.so")
    (first.parent / "libb.so").replace(first)
    with ElfFile(first) as elf:
        assert "liba.so" in elf.needed
    assert [place for place in closure(str(first)) if place.endswith("/liba.so")] == [str(first)]


def test_finds_what_runs_a_script(tmp_path: Path) -> None:
    def script(name: str, line: str) -> str:
        (tmp_path / name).write_text(f"{line}\nexit 0\n")
        (tmp_path / name).chmod(0o755)
        return str(tmp_path / name)

    shell = os.path.realpath("/bin/sh")
    sh = "/bin/sh"
    assert resolve_script(script("a", "#!/bin/sh")) == sh
    assert resolve_script(script("b", "#! /bin/sh -e")) == sh
    assert resolve_script(script("c", f"#!{tmp_path}/a")) == sh
    for line in ("#!/usr/bin/env sh", "#!/usr/bin/env -S sh -e", "#!/usr/bin/env -S A=1 sh"):
        assert os.path.realpath(resolve_script(script("d", line))) == shell
    assert resolve_script(script("e", "#!/usr/bin/env -i")) == "/usr/bin/env"
    assert resolve_script(script("f", "#!/usr/bin/env -S 'open")) == "/usr/bin/env"
    assert resolve_script("/bin/bash") == "/bin/bash"
    assert closure(str(tmp_path / "a"))[0] == sh
    for line in ("#!", "#!   ", f"#!{tmp_path}/g"):
        with pytest.raises(NotExecutable):
            resolve_script(script("g", line))
    for line in ("#!/no/such/program", "#!/usr/bin/env no-such-program"):
        with pytest.raises(TargetNotFound):
            resolve_script(script("h", line))


def test_refuses_what_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("just text")
    with pytest.raises(NotExecutable):
        closure(str(tmp_path / "text"))
    with pytest.raises(NotExecutable):
        closure(str(tmp_path))
    for missing in (str(tmp_path / "none"), "a\0b"):
        with pytest.raises(TargetNotFound):
            closure(missing)


def test_finds_programs_as_a_shell_does(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("")
    with pytest.raises(TargetNotFound):
        find_program("tool", str(tmp_path))
    (tmp_path / "tool").chmod(0o755)
    assert find_program("tool", f"/none:{tmp_path}") == str(tmp_path / "tool")
    assert find_program("./tool", "") == "./tool"
