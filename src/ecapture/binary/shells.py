# SPDX-License-Identifier: Apache-2.0
"""Says which shell a file is, and where the functions and variables are that show its commands.

bash and zsh export nearly all they have, because builtins and modules that are loaded at run time
use it. So what can be seen of a shell is which names it has, whatever its version; builds that are
linked statically have them in the full symbol table, unless they were stripped: then the functions
are found by what they do (``shell_code``, ``zsh_code``). Other shells are recognised by their
constants, and understood by what they do (``ash_code``, ``busybox_code``, ``fish_code``).

Invariants: a variable is part of the file's data, a function of its code; where a name that a
shell cannot be understood without is missing, ``reason`` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from ecapture.binary.ash_code import find_dash
from ecapture.binary.busybox_code import find_busybox
from ecapture.binary.code_search import Found
from ecapture.binary.elf import ElfFile, Symbol
from ecapture.binary.fish_code import find_fish, find_named_fish
from ecapture.binary.shell_code import find_bash
from ecapture.binary.zsh_code import find_zsh
from ecapture.errors import NotExecutable
from ecapture.protocols.zsh_program import TOKENS

Kind = Literal["bash", "zsh", "readline", "zle", "busybox", "dash", "fish"]
How = Literal["dynsym", "symtab", "fingerprint", "content"]


class Names(NamedTuple):
    """What is looked for in a shell. Without one of ``required`` it cannot be understood."""

    required: tuple[str, ...]
    functions: tuple[str, ...]
    required_variables: tuple[str, ...]
    variables: tuple[str, ...]


NAMES: Final[dict[Kind, Names]] = {
    "bash": Names(
        ("parse_command", "reader_loop"),
        ("readline", "pre_process_line", "execute_command_internal", "run_debug_trap"),
        ("last_command_exit_value",),
        (
            "global_command",
            "interactive_shell",
            "bash_input",
            "command_execution_string",
            "sourcelevel",
            "the_printed_command",
        ),
    ),
    "zsh": Names(
        ("hbegin", "hend"),
        ("zleread", "execstring", "execode"),
        ("lastval", "chline", "hptr"),
        ("scriptfilename", "ztokens", "zsh_eval_context"),
    ),
}
"""By the kind of the file."""

MARKERS: Final[dict[bytes, Kind]] = {
    b"@(#)Bash version ": "bash",
    b"zsh: job can't be suspended": "zsh",
    b"BusyBox v": "busybox",
    b"__fish_print_help": "fish",
    b"\0PS1=$ \0": "dash",
}
"""Constants that only these have, for files whose functions have no names."""

VERSIONS: Final = {
    "bash": (
        b"@(#)Bash version ",
        re.compile(rb"@\(#\)(Bash version \d+\.\d+\.\d+\(\d+\))"),
    ),
    "zsh": (b"/zsh/", re.compile(rb"/(zsh/\d+\.\d+[\w.-]*)")),
    "busybox": (b"BusyBox v", re.compile(rb"(BusyBox v\d+\.\d+\.\d+)")),
}
"""How each tells its version: the constant prefix, then the whole."""

_RUNS_PROGRAMS: Final = "execode"
_OF_PROGRAMS: Final = ("zsh_eval_context", "scriptfilename", "ztokens")
"""What zsh has if ``execode`` says where a program is from (4.3.11); its file; its tokens."""

_END_OF_MEMORY: Final = 1 << 64
NAMELESS: Final = "its functions have no names: what it runs cannot be seen"


class Shell(NamedTuple):
    """A shell. ``functions`` are file offsets, ``addresses`` those of all as they were linked.

    ``evidence`` says of functions that nothing names why they are held for them.
    """

    kind: Kind
    how: How
    functions: dict[str, int]
    addresses: dict[str, int]
    reason: str
    evidence: Mapping[str, str] = MappingProxyType({})


def exported(elf: ElfFile) -> Shell | None:
    """Return the shell that exports its functions, or the line editor of one.

    Raises:
        NotExecutable: the file contradicts itself.
    """
    if elf.soname.startswith("libreadline"):
        found = elf.symbol("readline")
        return _shell(elf, "readline", "dynsym", {"readline": found}, {}) if found else None
    if elf.symbol("zleread") and elf.symbol("zlecore") and not elf.symbol("hend"):
        return _shell(elf, "zle", "dynsym", {"zleread": elf.symbol("zleread")}, {})
    for kind, names in NAMES.items():
        if all(elf.symbol(name) for name in names.required):
            functions = {n: elf.symbol(n) for n in (*names.required, *names.functions)}
            wanted = (*names.required_variables, *names.variables)
            variables = {name: elf.symbol(name, variable=True) for name in wanted}
            return _shell(elf, kind, "dynsym", functions, variables)
    fish = find_named_fish(elf)
    return _by_code(elf, "fish", fish, "dynsym") if fish is not None else None


def nameless(elf: ElfFile, marker: bytes) -> Shell:
    """Return the shell that a marker tells of, with what the full symbol table names of it."""
    kind = MARKERS[marker]
    names = NAMES.get(kind)
    if names is not None:
        functions = elf.symtab((*names.required, *names.functions))
        if all(name in functions for name in names.required):
            wanted = (*names.required_variables, *names.variables)
            variables = elf.symtab(wanted, variables=True)
            return _shell(elf, kind, "symtab", functions, variables)
    if kind == "bash":
        return _by_code(elf, kind, find_bash(elf))
    if kind == "zsh":
        return _by_code(elf, kind, find_zsh(elf))
    if kind == "dash":
        return _by_code(elf, kind, find_dash(elf))
    if kind == "busybox":
        return _by_code(elf, kind, find_busybox(elf))
    return _by_code(elf, kind, find_fish(elf))


def _by_code(elf: ElfFile, kind: Kind, found: Found, how: How = "fingerprint") -> Shell:
    if found.reason:
        return Shell(kind, "content", {}, {}, f"{NAMELESS} ({found.reason})")
    offsets = {
        name: elf.file_offset(address, executable=True) for name, address in found.functions.items()
    }
    addresses = found.functions | found.variables
    if not all(0 <= address < _END_OF_MEMORY for address in addresses.values()):
        return Shell(kind, "content", {}, {}, f"{NAMELESS} (its variables are in no memory)")
    evidence = dict(found.evidence)
    if found.unattended:
        evidence["commands that nobody types"] = f"not seen: {found.unattended}"
    return Shell(kind, how, offsets, addresses, "", evidence)


def _shell(
    elf: ElfFile,
    kind: Kind,
    how: How,
    functions: Mapping[str, Symbol | None],
    variables: Mapping[str, Symbol | None],
) -> Shell:
    offsets: dict[str, int] = {}
    addresses: dict[str, int] = {}
    for name, symbol in functions.items():
        if symbol is not None:
            try:
                offsets[name] = elf.file_offset(symbol.address, executable=True)
            except NotExecutable:
                continue
            addresses[name] = symbol.address
    addresses |= {name: symbol.address for name, symbol in variables.items() if symbol is not None}
    if _RUNS_PROGRAMS in offsets and not _has_known_programs(elf, addresses):
        del offsets[_RUNS_PROGRAMS], addresses[_RUNS_PROGRAMS]
    names = NAMES.get(kind)
    required = (*names.required, *names.required_variables) if names else ()
    missing = [name for name in required if name not in addresses]
    reason = f"lacks {', '.join(missing)}" if missing else ""
    return Shell(kind, how, offsets, addresses, reason)


def _has_known_programs(elf: ElfFile, addresses: Mapping[str, int]) -> bool:
    # How a zsh keeps what it parsed changed from release to release as its list of tokens did: the
    # latter tells, and is a part of the former.
    if any(name not in addresses for name in _OF_PROGRAMS):
        return False
    try:
        at = elf.file_offset(addresses["ztokens"])
        return elf.read(at, len(TOKENS) + 1) == TOKENS + b"\0"
    except NotExecutable:
        return False
