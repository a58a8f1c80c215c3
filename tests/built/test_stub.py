# SPDX-License-Identifier: Apache-2.0
"""The stub of each extension has its names and signatures, and documents every one of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
STUBS = CHECKOUT / "src" / "ecapture" / "kernel"
EXTENSIONS = (
    *("kernel._native", "kernel._network", "kernel._served", "kernel._commands"),
    "kernel._mounts",
    *("pipeline._openings", "pipeline._turns", "pipeline._queries", "pipeline._tally"),
    "formats._statements",
)
EXCEPTIONS = Path(__file__).parent / "stub_exceptions.txt"


@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_stub_matches_the_extension(name, tmp_path):
    pytest.importorskip("mypy.stubtest")
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nmypy_path = {CHECKOUT / 'src'}\n")
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy.stubtest",
            f"ecapture.{name}",
            "--mypy-config-file",
            str(tmp_path / "mypy.ini"),
            "--allowlist",
            str(EXCEPTIONS),
            "--ignore-unused-allowlist",  # an extension without classes has less of Cython's
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def documented(body, owner=""):
    """(name, whether it has a docstring) of what a stub declares."""
    for node in body:
        name = getattr(node, "name", "")
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or name.startswith("_"):
            continue
        yield owner + name, bool(ast.get_docstring(node))
        if isinstance(node, ast.ClassDef):
            yield from documented(node.body, name + ".")


def test_what_the_extension_offers_is_documented():
    # what a name and a type say completely
    plain = {
        "Map.fd",
        "Map.name",
        "Map.key_size",
        "Map.value_size",
        "Map.max_entries",
        "Object.path",
    }
    found = {
        name: has
        for stub in ("_native.pyi", "_network.pyi")
        for name, has in documented(ast.parse((STUBS / stub).read_text()).body)
    }
    assert len(found) > 30
    assert {name for name, has in found.items() if not has} == plain
