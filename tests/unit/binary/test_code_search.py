# SPDX-License-Identifier: Apache-2.0
"""What code says of itself is what its source says, with names or without."""

from __future__ import annotations

import platform
import subprocess

import pytest

from ecapture.binary.code_search import CodeSearch, NotFoundError, only
from ecapture.binary.elf import ElfFile

pytestmark = [
    pytest.mark.needs("program:cc"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="only code for x86_64 is searched"),
]
SOURCE = """
int counter, level, chosen;
long wide;
__attribute__((noinline)) void told(const char *text, int a, int b) { __asm__("" ::: "memory"); }
__attribute__((noinline)) int speaks(void)
{
    told("a text of its own", 1, -1);
    counter++;
    level = 1;
    wide = 0;
    return wide == 0;
}
__attribute__((noinline)) int asks(int n)
{
    speaks();
    level = n;
    counter--;
    return chosen == 3 ? level : counter;
}
int main(void) { return asks(2); }
"""
NAMES = ("told", "speaks", "asks", "main", "counter", "level", "chosen", "wide")


@pytest.fixture(scope="module", params=[("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=str)
def program(request, tmp_path_factory):
    """The search of a program, and its names."""
    path = tmp_path_factory.mktemp("code") / "program"
    text = path.with_suffix(".c")
    text.write_text(SOURCE)
    subprocess.run(["cc", "-O1", *request.param, "-o", path, text], check=True)
    with ElfFile(path) as elf:
        functions = elf.symtab(NAMES)
        variables = elf.symtab(NAMES, variables=True)
        yield (
            CodeSearch(elf),
            {name: symbol.address for name, symbol in (functions | variables).items()},
        )


def test_who_names_and_who_calls(program):
    search, names = program
    assert search.naming([b"a text of its own\0", b"another\0"]) == {
        b"a text of its own\0": {names["speaks"]},
        b"another\0": set(),
    }
    [places] = search.places.values()
    assert len(places) == 1
    assert search.callers(names["speaks"]) == {names["asks"]}
    assert search.callers(names["asks"]) == {names["main"]}
    [call] = search.calls(names["speaks"])
    second, third = search.convention.arguments[1:3]
    assert call.target == names["told"]
    assert (call.constants[second], call.constants[third] & 0xFFFFFFFF) == (1, 0xFFFFFFFF)


def test_what_is_done_with_variables(program):
    search, names = program
    assert search.counted(names["speaks"]) == {names["counter"]: 1}
    assert search.stored(names["speaks"], value=1) == {names["level"]}
    assert search.stored(names["speaks"], 8, 0) == {names["wide"]}
    assert names["level"] in search.stored(names["asks"])
    assert search.compared(names["asks"], 3) == {names["chosen"]}
    assert search.compared(names["asks"], 4) == set()
    assert names["chosen"] in search.looked_at(names["asks"])
    assert search.looked_at(names["main"]) == set()


def test_only_one_counts():
    assert only([7, 7], "seven") == 7
    for found in ([], [1, 2]):
        with pytest.raises(NotFoundError, match="seven is not to be told from the rest"):
            only(found, "seven")
