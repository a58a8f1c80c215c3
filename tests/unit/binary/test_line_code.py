# SPDX-License-Identifier: Apache-2.0
"""What reads a line of a shell is told by what it does with the members of what it reads from."""

from __future__ import annotations

import platform
import subprocess

import pytest

from ecapture.binary.elf import ElfFile
from ecapture.binary.line_code import LineSearch

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only code for x86_64 is looked into"
)
SOURCE = """
struct file { void *outer; int line, fd, left, left_in_buffer; unsigned char *next, *buffer; };
static struct file first;
struct file *volatile file = &first;
int fill(void *);
__attribute__((noinline)) int fill(void *where) { return where == 0; }
__attribute__((noinline, noclone)) int read_line(void)
{
	struct file *from = file;
	if (!from->buffer || from->left_in_buffer < 0)
		return -129;
	int got = fill(from->buffer);
	from = file;
	from->MEMBER = got;
	from->left = got - 1;
	from->next = from->buffer;
	fill(0);
	from = file;
	return *from->next++;
}
__attribute__((noinline, noclone)) int parse(void) { return read_line() + fill(&first); }
int main(void) { return parse(); }
"""


def built(folder, member):
    source, program = folder / "shell.c", folder / "shell"
    source.write_text(SOURCE.replace("MEMBER", member))
    command = ["cc", "-O1", "-fno-stack-protector", "-fcf-protection=none", "-o", program, source]
    subprocess.run(command, check=True)
    return program


def readers(program):
    with ElfFile(program) as elf:
        code = LineSearch(elf)
        named = elf.symtab(("parse", "read_line"))
        file = elf.symtab(("file",), variables=True)["file"].address
        found = code.readers(named["parse"].address)
        return found, code.functions.range_of(named["read_line"].address), file


def test_it_is_the_return_of_what_takes_a_byte(tmp_path):
    [reader], (start, end), file = readers(built(tmp_path, "left_in_buffer"))
    assert start < reader.place < end
    assert reader.file == file


def test_what_counts_elsewhere_is_none(tmp_path):
    found, _span, _file = readers(built(tmp_path, "line"))
    assert found == set()
