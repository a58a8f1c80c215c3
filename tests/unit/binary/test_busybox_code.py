# SPDX-License-Identifier: Apache-2.0
"""The functions of busybox's sh are found by their code alone, or not at all.

No build has names to compare with: what was found is checked against what the function must do,
and by captures of real shells (``tests/capture/test_sh.py``).
"""

from __future__ import annotations

import sys

import pytest
from shell_searches import (
    assert_all_have_evidence,
    assert_damage_never_leads_elsewhere,
    assert_nothing_found,
    assert_work_is_bounded,
    changed,
    every_bound,
    found_in,
    needs_x86_64,
    program,
)

from ecapture.binary.busybox_code import _Search, find_busybox
from ecapture.binary.code_search import CodeSearch, NotFoundError
from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify
from ecapture.binary.secrets.operations import Call, Load, Memory, Return

BUSYBOX = program("busybox")
TYPED = {"parsecmd", "preadbuffer.return"}
FUNCTIONS = TYPED | {"cmdloop", "evalstring"}
VARIABLES = {
    *("parsefile", "doprompt", "ptr_to_globals_misc", "exitstatus.member"),
    *("minusc.member", "cmdloop.end", "arg0.member", "commandname"),
}
pytestmark = [pytest.mark.needs("program:busybox"), needs_x86_64]


def find(path):
    return found_in(find_busybox, path)


def test_all_is_found_and_stands_where_it_must():
    found = find(BUSYBOX)
    assert (found.reason, found.unattended) == ("", "")
    assert (set(found.functions), set(found.variables)) == (FUNCTIONS, VARIABLES)
    with ElfFile(BUSYBOX) as elf:
        code = CodeSearch(elf)
        line = found.functions["preadbuffer.return"]
        assert code.image.instruction(line).operations == (Return(),)
        for name in FUNCTIONS - {"preadbuffer.return"}:
            start = found.functions[name]
            called_from = code.sites[start]
            assert any(Call(start) in code.image.instruction(at).operations for at in called_from)
            elf.file_offset(start, executable=True)
        # both call what reads a command, within what they are held for
        calls = code.sites[found.functions["parsecmd"]]
        loop, end = found.functions["cmdloop"], found.variables["cmdloop.end"]
        assert sum(loop < at < end for at in calls) == 1
        assert sum(found.functions["evalstring"] < at for at in calls) >= 1
    assert_all_have_evidence(found, FUNCTIONS, "; a direct call leads there")


@pytest.mark.parametrize("path", ["/bin/true", sys.executable, "/bin/bash", "/bin/sh"])
def test_other_programs_have_none_of_it(path):
    assert_nothing_found(find(path))


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (b'\nUse "exit" to leave shell.\n\0', "what runs one command after the other"),
        (b"$HOME/.profile\0", "what reads $HOME/.profile"),
    ],
)
def test_without_one_of_its_texts_it_is_not_recognised(tmp_path, text, lacks):
    assert BUSYBOX.read_bytes().count(text) == 1
    found = find(changed(BUSYBOX, tmp_path, text, b"#" * (len(text) - 1) + b"\0"))
    assert (found.functions, found.variables) == ({}, {})
    assert found.reason == f"{lacks} is not to be told from the rest"


def test_without_names_of_files_the_rest_is_found(tmp_path):
    found = find(changed(BUSYBOX, tmp_path, b"\0line %d: \0", b"\0line %u: \0"))
    assert (found.reason, found.unattended) == ("", "")
    assert set(found.variables) == VARIABLES - {"arg0.member", "commandname"}


def test_damage_is_refused_and_never_leads_elsewhere(tmp_path):
    sizes = (1 << 8, 1 << 10, 1 << 12)
    assert_damage_never_leads_elsewhere(find_busybox, BUSYBOX, tmp_path, seed=9, sizes=sizes)


@every_bound
def test_work_is_bounded_and_what_is_half_done_is_not_used(monkeypatch, bound):
    assert_work_is_bounded(find_busybox, BUSYBOX, bound, 1 << 8, monkeypatch)


def members_of_main():
    """Where instructions of main stand in the file that name the member for -c, and what it is."""
    with ElfFile(BUSYBOX) as elf:
        search = _Search(elf)
        typed = search.typed()
        others = search.unattended(typed)
        member = others.variables["minusc.member"]
        places = []
        for site in search.sites[others.functions["evalstring"]]:
            for address, operation in search._operations_to(site, 512):
                match operation:
                    case Load(_, Memory(base, offset), 8) if base >= 0 and offset == member:
                        code = search.image.bytes_at(address, 4)
                        places.append(elf.file_offset(address) + code.index(member))
    return sorted(set(places)), member


def test_what_is_in_front_of_what_it_belongs_to_is_no_member(tmp_path):
    """No number that the kernel program cannot be told is taken for one."""
    places, member = members_of_main()
    whole = bytearray(BUSYBOX.read_bytes())
    for place in places:
        assert whole[place] == member
        whole[place] = 0x98  # -104
    path = tmp_path / "busybox"
    path.write_bytes(whole)
    assert find(path).variables["minusc.member"] == -104
    with ElfFile(path) as elf:
        library = identify(elf)
    assert (library.kind, library.visible, library.functions) == ("busybox", False, {})
    assert "its variables are in no memory" in library.reason


def test_what_main_does_is_decoded_at_a_price():
    with ElfFile(BUSYBOX) as elf:
        search = _Search(elf)
        others = search.unattended(search.typed())
        site = search.sites[others.functions["evalstring"]][-1]
        steps = len({at for at, _ in search._operations_to(site, 512)})
        search.spend(search._left - steps)  # fewer than are needed
        with pytest.raises(NotFoundError, match="takes too long"):
            list(search._operations_to(site, 512))
