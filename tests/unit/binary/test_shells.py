# SPDX-License-Identifier: Apache-2.0
"""Shells are told apart by what they export, or else by their constants."""

import subprocess
from pathlib import Path

import pytest

from ecapture._wire import WideStatus, WideText
from ecapture.binary.elf import ElfFile
from ecapture.binary.fish_code import RUNS, SETS
from ecapture.binary.identify import identify
from ecapture.binary.shells import MARKERS, NAMELESS, NAMES
from ecapture.protocols.zsh_program import TOKENS

BASH = Path("/bin/bash").resolve()


def look(path):
    with ElfFile(path) as elf:
        return identify(elf)


def built(folder, source, *flags, name="shell"):
    program = folder / name
    text = folder / f"{name}.c"
    text.write_text(source)
    subprocess.run(["cc", "-O1", "-o", program, text, *flags], check=True)
    return program


def source(kind, *, without=(), tokens=TOKENS):
    names = NAMES[kind]
    functions = [name for name in (*names.required, *names.functions) if name not in without]
    variables = (*names.required_variables, *names.variables)
    lines = [f"int {name}(void) {{ return 1; }}" for name in functions]
    lines += [f"int {name} = 1;" for name in variables if name not in (*without, "ztokens")]
    constant = "".join(f"\\x{code:02x}" for code in tokens)
    lines += [f'char ztokens[] = "{constant}";'] if "ztokens" in variables else []
    return "\n".join([*lines, "int main(void) { return 0; }"])


def test_the_bash_of_this_machine():
    found = look(BASH)
    assert (found.kind, found.how, found.linkage, found.visible) == (
        "bash",
        "dynsym",
        "executable",
        True,
    )
    assert found.version.startswith("Bash version ")
    assert found.addresses.keys() >= {"parse_command", "last_command_exit_value"}
    with ElfFile(BASH) as elf:
        for name, offset in found.functions.items():
            assert elf.file_offset(found.addresses[name], executable=True) == offset


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("how", ["dynsym", "symtab"])
def test_by_names(tmp_path, kind, how):
    text = source(kind)
    marker = next(marker for marker, of in MARKERS.items() if of == kind)
    if how == "symtab":
        constant = "".join(f"\\x{code:02x}" for code in marker)
        text += f'\nconst char marker[] __attribute__((used)) = "{constant}";'
    found = look(built(tmp_path, text, *(["-rdynamic"] if how == "dynsym" else [])))
    assert (found.kind, found.how, found.visible, found.reason) == (kind, how, True, "")
    names = NAMES[kind]
    assert found.functions.keys() == {*names.required, *names.functions}
    assert found.addresses.keys() >= found.functions.keys()
    wanted = {*found.functions, *names.required_variables, *names.variables}
    assert found.addresses.keys() == wanted


@pytest.mark.parametrize(("kind", "lacks"), [("bash", "last_command_exit_value"), ("zsh", "hptr")])
def test_what_is_missing_is_named(tmp_path, kind, lacks):
    found = look(built(tmp_path, source(kind, without=(lacks,)), "-rdynamic"))
    assert (found.kind, found.visible, found.reason) == (kind, False, f"lacks {lacks}")


@pytest.mark.parametrize(
    "how", [{"tokens": TOKENS[:-3]}, {"tokens": TOKENS + b"%"}, {"without": ("zsh_eval_context",)}]
)
def test_a_zsh_that_keeps_programs_otherwise_shows_what_is_typed(tmp_path, how):
    found = look(built(tmp_path, source("zsh", **how), "-rdynamic"))
    assert (found.kind, found.visible, found.reason) == ("zsh", True, "")
    assert found.functions.keys() == {"hbegin", "hend", "zleread", "execstring"}
    assert "execode" not in found.addresses


@pytest.mark.parametrize("marker", MARKERS, ids=lambda marker: MARKERS[marker])
def test_by_constants(tmp_path, marker):
    constant = "".join(f"\\x{code:02x}" for code in marker)
    text = (
        f'const char text[] __attribute__((used)) = "{constant}";\nint main(void) {{ return 0; }}'
    )
    found = look(built(tmp_path, text, "-s"))
    assert (found.kind, found.how, found.visible) == (MARKERS[marker], "content", False)
    no_more = f"{NAMELESS} (nothing in it names 'PROMPT_COMMAND')"
    no_loop = f"{NAMELESS} (what runs one command after the other is not to be told from the rest)"
    no_runner = f"{NAMELESS} (what runs what was typed is not to be told from the rest)"
    reasons = {"bash": no_more, "fish": no_runner}
    assert found.reason == reasons.get(MARKERS[marker], no_loop)


def test_a_static_program_that_runs_at_any_address_is_one(tmp_path):
    code = 'const char text[] = "BusyBox v1.36.1"; int main(void) { return text[0]; }'
    found = look(built(tmp_path, code, "-static-pie", "-s"))
    assert (found.kind, found.linkage, found.visible) == ("busybox", "executable", False)
    assert found.version == "BusyBox v1.36.1"
    assert found.reason.startswith(NAMELESS)


def test_a_library_with_such_a_constant_is_no_shell(tmp_path):
    text = 'const char text[] __attribute__((used)) = "@(#)Bash version ";'
    assert look(built(tmp_path, text, "-shared", "-fPIC", "-s", name="lib.so")) is None


def test_the_readline_library(tmp_path):
    text = "char *readline(const char *p) { return (char *)p; }"
    library = built(tmp_path, text, "-shared", "-fPIC", "-Wl,-soname,libreadline.so.8")
    found = look(library)
    assert (found.kind, list(found.functions)) == ("readline", ["readline"])
    other = built(tmp_path, text, "-shared", "-fPIC", "-Wl,-soname,libedit.so.2")
    assert look(other) is None


def test_the_line_editor_of_zsh(tmp_path):
    text = "int zleread(void) { return 0; } int zlecore(void) { return 0; }"
    found = look(built(tmp_path, text, "-shared", "-fPIC", name="zle.so"))
    assert (found.kind, list(found.functions)) == ("zle", ["zleread"])


def test_a_fish_that_exports_what_it_has(tmp_path):
    text = f"void {RUNS}(void *parser, void *text) {{}}\nint main(void) {{ return 0; }}\n"
    setting = f"void {SETS}(void *variables, void *status) {{}}\n"
    for more, names in (("", set()), (setting, {"set_last_statuses"})):
        found = look(built(tmp_path, text + more, "-rdynamic", name=f"fish{len(names)}"))
        assert (found.kind, found.how, found.visible) == ("fish", "dynsym", True)
        assert set(found.functions) == {"reader_run_command"} | names
        row = (found.addresses["wide_text"], found.addresses["wide_status"])
        assert row == (WideText.STRING, WideStatus.SET)
