# SPDX-License-Identifier: Apache-2.0
"""What scripts name is found without running them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ecapture.binary.scripts import (
    interpreter_of,
    is_python,
    modules_of_python,
    programs_of_shell_script,
)

LARGE = b"\x7fELF" + bytes(300 << 10)


@pytest.fixture
def script(tmp_path: Path):
    def write(text: str, name: str = "script") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def python(tmp_path: Path) -> tuple[str, Path]:
    """An interpreter of its own, and where modules are installed for it."""
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (tmp_path / "env" / "bin").mkdir()
    (tmp_path / "env" / "bin" / "python").symlink_to(sys.executable)
    return str(tmp_path / "env" / "bin" / "python"), site


def package(site: Path, name: str, text: str = "", *shared: str) -> list[str]:
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(text)
    for file in shared:
        (site / name / file).write_bytes(LARGE)
    return [str(site / name / file) for file in shared]


@pytest.mark.parametrize(
    "line, program",
    [
        ("#!/bin/sh\n", "/bin/sh"),
        ("#! /usr/bin/env python3\n", "python3"),
        ("#!/usr/bin/python3 -I\n", "/usr/bin/python3"),
        ("echo\n", ""),
        ("", ""),
    ],
)
def test_the_first_line_names_the_interpreter(script, line, program):
    assert interpreter_of(script(line)) == program


def test_what_cannot_be_read_has_no_interpreter(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "absent", tmp_path / "pipe"):
        assert interpreter_of(str(place)) == ""
    assert interpreter_of("a\0b") == ""


def test_which_programs_are_python():
    assert [is_python(name) for name in ("/usr/bin/python3.11", "python", "pythonw", "sh")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_wrapper_leads_to_the_program_by_its_own_variables(script, tmp_path):
    program = tmp_path / "lib" / "browser"
    program.parent.mkdir()
    program.write_bytes(LARGE)
    program.chmod(0o755)
    (program.parent / "data").write_bytes(LARGE)
    text = f"""#!/bin/sh
NAME=browser
export FOLDER="{tmp_path}/lib"
OTHER=$(uname)
echo "$FOLDER/data" >/dev/null
exec "$FOLDER"/"$NAME" "$@" || exec ${{FOLDER}}/$NAME
"""
    assert programs_of_shell_script(script(text)) == (str(program),)
    assert programs_of_shell_script(script(text.replace("/bin/sh", "/bin/awk"))) == ()


def test_variables_that_grow_without_end_do_not(script):
    text = "#!/bin/sh\nA=/aaaaaaaaaaaaaaaa\n" + "A=$A$A$A$A\n" * 200 + "$A\n"
    assert programs_of_shell_script(script(text)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "import one\n",
        "import os, one.part as other\n",
        "from one.part import thing\n",
        "def f():\n    import one  # late\n",
        "x = 1; import one\n",
        "try:\n\tfrom two import thing\nexcept ImportError:\n\tpass\n",
    ],
)
def test_shared_objects_of_modules_and_of_what_they_import(script, python, text):
    program, site = python
    wanted = package(site, "one", "from two import x\n", "_one.abi3.so")
    wanted += package(site, "two", "", "two.cpython-311.so")
    package(site, "three", "", "_three.so")
    (site / "one" / "small.so").write_bytes(b"\x7fELF")
    name = script(text, "main.py")
    found = modules_of_python([program, name], [program], {})
    assert set(found) <= set(wanted)
    assert set(found) == set(wanted if "one" in text else wanted[1:])


@pytest.mark.parametrize("words", [["-c", "import alone"], ["-m", "alone.sub"], ["-m", "alone"]])
def test_modules_without_a_package_and_words_that_name_them(python, words):
    program, site = python
    (site / "alone.abi3.so").write_bytes(LARGE)
    found = modules_of_python([program, *words], [program], {})
    assert found == (str(site / "alone.abi3.so"),)


def test_the_search_path_of_the_environment_and_libraries_of_wheels(tmp_path, python):
    program, _site = python
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    wanted = package(elsewhere, "one", "", "_one.so")
    (elsewhere / "one.libs").mkdir()
    (elsewhere / "one.libs" / "libssl-1.so.3").write_bytes(LARGE)
    wanted.append(str(elsewhere / "one.libs" / "libssl-1.so.3"))
    variables = {"PYTHONPATH": f":{elsewhere}"}
    assert set(modules_of_python(["-c", "import one"], [program], variables)) == set(wanted)


def test_modules_that_import_each_other_end(python):
    program, site = python
    package(site, "one", "import two")
    package(site, "two", "import one")
    assert modules_of_python(["-c", "import one"], [program], {}) == ()


def test_what_names_nothing_is_not_looked_for(python):
    program, _site = python
    assert modules_of_python([program, "-c", "print(1)", "absent.py"], [program], {}) == ()
