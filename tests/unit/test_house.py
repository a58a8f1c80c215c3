# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a machine can keep. Every list of exceptions here may only shrink."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "src" / "ecapture"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
SOURCES = [  # of the checkout: what is installed may be older
    path
    for folder, pattern in (
        ("src", "*.py"),
        ("src", "*.pyi"),
        ("src", "*.pyx"),
        ("bpf", "*.c"),
        ("bpf", "*.h"),
        ("tests", "*.py"),
        ("tests", "*.c"),
        ("tools", "*.py"),
        ("benchmarks", "*.py"),
    )
    for path in sorted((CHECKOUT / folder).rglob(pattern))
]
MAXIMUM_LINES, MAXIMUM_FUNCTION = 600, 60

# module: why no file in tests/unit stands for it
UNTESTED = {
    "__main__.py": "one line; tests/unit/cli/test_replay.py runs it",
    "_wire.py": "generated; tests/built/test_wire.py",
    "binary/secrets/operations.py": "tests/unit/binary/secrets/test_locate.py",
    "binary/secrets/sites.py": "tests/unit/binary/secrets/test_locate.py",
    "binary/secrets/votes.py": "tests/unit/binary/secrets/test_locate.py",
    "binary/secrets/x86_layout.py": "tests/unit/binary/secrets/test_x86.py",
    "discovery.py": "needs processes and probes; tests/capture",
    "kernel/attach.py": "needs the kernel; tests/kernel/test_programs.py",
    "kernel/families.py": "a table; tests/built/test_wire.py",
    "kernel/clsact.py": "needs the kernel; tests/capture/test_packets_clsact.py",
    "kernel/links.py": "needs the kernel; tests/capture/test_packets_interfaces.py",
    "kernel/owners.py": "needs the kernel; tests/capture/test_packets_owners.py",
    "kernel/packets.py": "needs the kernel; tests/capture/test_packets.py",
    "kernel/seccomp.py": "needs the kernel; tests/kernel/test_seccomp.py",
    "shell_events.py": "values; tests/unit/pipeline/test_commands.py",
    "probes/spec.py": "a value; tests/unit/probes/test_probes.py",
}
# values, all of them: tests/unit/probes/test_probes.py
VALUES = {"probes"}
# file: why it is longer than MAXIMUM_LINES
LONG_FILES = {
    "bpf/wire.h": "all that crosses to the kernel programs stands in one place",
    "src/ecapture/_wire.py": "generated from bpf/wire.h",
    "tests/unit/protocols/test_http2.py": "transcripts, read from top to bottom",
}
# file:function: why it is longer than MAXIMUM_FUNCTION
LONG_FUNCTIONS = {"tools/gen_redaction.py:page": "one page of text"}
# file: why it sleeps between two looks
SLEEPING = {"tests/vm/guest.py": "a guest offers nothing that could be waited on"}
# words that name a pattern or nothing at all
REFUSED = {
    "utils", "helpers", "common", "misc", "base", "manager", "handler", "factory", "builder",
    "data", "info",
}  # fmt: skip


def mirrored(module: Path) -> bool:
    """Whether tests/unit has a test module at the mirrored path."""
    return (CHECKOUT / "tests" / "unit" / module.parent / f"test_{module.name}").exists()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_test_module_at_the_mirrored_path(module):
    if module.name == "__init__.py" or str(module.parent) in VALUES:
        return
    if str(module) in UNTESTED:
        assert not mirrored(module), "it is tested now: take it off the list"
    else:
        assert mirrored(module), f"write tests/unit/{module.parent}/test_{module.name}"


def test_exceptions_name_modules_that_exist():
    assert {path for path in UNTESTED if not (PACKAGE / path).exists()} == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_file_is_long(path):
    lines = len(path.read_text().splitlines())
    allowed = str(path.relative_to(CHECKOUT)) in LONG_FILES
    assert (lines > MAXIMUM_LINES) == allowed, f"{lines} lines"


def functions(path):
    """(name, lines of code) of every function; its docstring does not count."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            yield node.name, node.end_lineno - first.lineno + 1


def test_no_function_is_long():
    long = {
        f"{path.relative_to(CHECKOUT)}:{name}"
        for path in SOURCES
        if path.suffix == ".py"
        for name, lines in functions(path)
        if lines > MAXIMUM_FUNCTION
    }
    assert long == set(LONG_FUNCTIONS)


def calls(path):
    """Names of what is called, as far as they are written out: ``print``, ``time.sleep``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_no_test_sleeps_and_the_package_prints_nothing():
    slept = [
        f"{path.relative_to(CHECKOUT)}:{line}"
        for path in SOURCES
        if path.suffix == ".py" and "tests" in path.parts
        if str(path.relative_to(CHECKOUT)) not in SLEEPING
        for name, line in calls(path)
        if name.endswith("sleep") and "programs" not in name  # asks for a wake-up, returns at once
    ]
    printed = [
        f"{module}:{line}"
        for module in MODULES
        for name, line in calls(PACKAGE / module)
        if name in ("print", "pprint", "pprint.pprint", "breakpoint")
    ]
    assert (slept, printed) == ([], [])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_nothing_is_left_to_do_and_every_file_names_its_licence(path):
    text = path.read_text()
    if path != Path(__file__):
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    assert "SPDX-License-Identifier: " in text[:200] or not text


def test_names_say_what_a_module_is():
    words = {word for module in MODULES for word in re.split(r"[_/.]", str(module))}
    assert words & REFUSED == set()


def test_only_the_package_kernel_touches_the_native_layer():
    touching = {
        str(module.parent)
        for module in MODULES
        if re.search(r"\b_native\b", (PACKAGE / module).read_text())
    }
    # discovery reads the watch of mappings
    assert touching == {"kernel", "."}
    assert {
        str(module)
        for module in MODULES
        if "_native" in (PACKAGE / module).read_text() and module.parent == Path()
    } == {"discovery.py"}
