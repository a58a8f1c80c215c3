# SPDX-License-Identifier: Apache-2.0
"""Which functions of a MySQL, MariaDB or Percona server carry out commands, and what they show.

Strategy: servers export their C++ functions for plug-ins to link with, so stripping leaves their
names. A function is chosen by the shape of its mangled name, which has the types of its arguments
(Itanium C++ ABI, section 5.1); no version is looked at.

Where the user, the database and the like stand in a session's object (``THD``) is read from the
code of small accessors, which is evaluated, never run. What no accessor gives away is left out, and
``absent`` says why. Nothing is guessed: a walk must come from code of one meaning only.

Sources: sql/sql_parse.h, sql/protocol.h, sql/protocol_classic.h, sql/auth/sql_security_ctx.h and
include/mysql/plugin.h of MySQL 5.5 to 9.7 and MariaDB 5.5 to 12.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from ecapture._wire import Dispatch
from ecapture.binary.elf import ElfFile, Symbol
from ecapture.binary.secrets.evaluate import Evaluator, Pointer, Scalar, Trace, Value
from ecapture.binary.secrets.functions import Functions, is_stub
from ecapture.binary.secrets.image import Image
from ecapture.binary.secrets.operations import Add, Call, Jump, Set
from ecapture.binary.server import FIELDS, Server, Walk
from ecapture.errors import NotExecutable

ANCHORS: Final = ("thd_get_thread_id", "thd_test_options", "thd_tx_isolation")
"""What servers export for plug-ins, in C, in all releases: a cheap first question."""

PROGRAMS: Final = ("mysqld", "mariadbd")
"""What such a server is called: one without any names to be found by is said to be one."""
DISPATCH: Final = "dispatch_command"
_VERSIONS: Final = (
    (b"MariaDB ", re.compile(rb"(MariaDB \d+\.\d+\.\d+)\0")),
    (b"MySQL ", re.compile(rb"(MySQL \d+\.\d+\.\d+)\0")),
)
_THD: Final = r"P3THD"
_LONG: Final = "[ym]"  # unsigned long long or unsigned long
_PACKET: Final = re.compile(rf"_Z16dispatch_command19enum_server_command{_THD}Pcj\w*")
_PARSED: Final = re.compile(rf"_Z16dispatch_command{_THD}PK8COM_DATA19enum_server_command\w*")
# What the client is told. Since MariaDB 10.1 the "net_" functions do what the others did before;
# MySQL's classes since 5.7: the protocol of clients, and that of plug-ins (the X protocol). What is
# prepared derives from Statement, so its base's constructor runs, C2 (a copy of its own in 5.6).
_ROLES: Final[tuple[tuple[str, str], ...]] = (
    ("acl_authenticate", rf"_Z16acl_authenticate{_THD}\w*"),
    ("end_connection", rf"_Z14end_connection{_THD}"),
    ("net_send_ok", rf"_ZN8Protocol11net_send_okE{_THD}jj{_LONG}{_LONG}PKc"),
    ("net_send_ok_marked", rf"_ZN8Protocol11net_send_okE{_THD}jj{_LONG}{_LONG}PKcbb?"),
    ("net_send_eof", rf"_ZN8Protocol12net_send_eofE{_THD}jj"),
    ("net_send_error", rf"_ZN8Protocol21net_send_error_packetE{_THD}jPKc\w*"),
    ("send_ok", rf"_ZN(?:8Protocol|16Protocol_classic)7send_okEjj{_LONG}{_LONG}PKc"),
    ("send_eof", r"_ZN(?:8Protocol|16Protocol_classic)8send_eofEjj"),
    ("send_error", r"_ZN(?:8Protocol|16Protocol_classic)10send_errorEjPKcS\d?_"),
    ("plugin_send_ok", rf"_ZN17Protocol_callback7send_okEjj{_LONG}{_LONG}PKc"),
    ("plugin_send_eof", r"_ZN17Protocol_callback8send_eofEjj"),
    ("plugin_send_error", r"_ZN17Protocol_callback10send_errorEjPKcS\d?_"),
    ("store_ps_status", r"_ZN16Protocol_classic15store_ps_statusEmjjm"),
    ("plugin_store_ps_status", r"_ZN17Protocol_callback15store_ps_statusEmjjm"),
    ("Statement", r"_ZN9StatementC2EP3LEXP11st_mem_rootN11Query_arena\w+Em"),
)
_REPLACED: Final = {
    "net_send_ok_marked": "send_ok",
    "net_send_ok": "send_ok",
    "net_send_eof": "send_eof",
    "net_send_error": "send_error",
}
_NAME_PARTS: Final = (
    b"dispatch_command",
    b"acl_authenticate",
    b"end_connection",
    b"send_ok",
    b"send_eof",
    b"send_error",
    b"store_ps_status",
    b"9StatementC2E",
)
_NUL_ENDED, _COUNTED, _HALF, _WHOLE = 0, 8, 4, 8
_FURTHEST: Final = 1 << 16
_LONGEST_CALLER: Final = 4096  # bytes


class Located(msgspec.Struct, frozen=True):
    """Functions of a server by their role, as symbols, and what they show."""

    functions: dict[str, Symbol]
    server: Server


def is_server(elf: ElfFile) -> bool:
    """Whether the file exports what plug-ins of such a server link with; a few reads."""
    return any(elf.symbol(name) for name in ANCHORS)


def locate(elf: ElfFile, *, named: str = "", at: int | None = None) -> Located | None:
    """Find the functions of a server; None if none of them carries out commands.

    ``named`` is the symbol of the function that does, ``at`` its offset in the file, where the
    caller knows better.

    Raises:
        NotExecutable: the file contradicts itself, or what is named is no function's start.
    """
    image = Image(elf)
    functions = Functions(image)
    names = elf.exported_names(*_NAME_PARTS)
    chosen: dict[str, Symbol] = {}
    found = _dispatch(elf, functions, names, named, at)
    if found is None:
        return None
    chosen[DISPATCH], dispatch = found
    for role, pattern in _ROLES:
        whole = re.compile(pattern)
        for name in sorted(names):
            symbol = elf.symbol(name) if whole.fullmatch(name) else None
            if symbol is not None and _plantable(image, functions, symbol.address):
                chosen.setdefault(role, symbol)
    for new, old in _REPLACED.items():
        if (
            new in chosen
            and old in chosen
            and _leads_to(image, functions, chosen[old], chosen[new])
        ):
            del chosen[old]
    walks, absent = _walks(elf, Evaluator(image, functions))
    return Located(chosen, Server(dispatch=dispatch, walks=walks, absent=absent))


def _dispatch(
    elf: ElfFile, functions: Functions, names: set[str], named: str, at: int | None
) -> tuple[Symbol, Dispatch] | None:
    if at is not None:
        address = elf.address(at)
        if address is None or not functions.is_start(address):
            elf.refuse(f"no function starts at offset {at:#x}")
        return Symbol(f"offset {at:#x}", address, 0), Dispatch.ANY
    wanted = [named] if named else sorted(name for name in names if DISPATCH in name)
    for pattern, dispatch in ((_PACKET, Dispatch.PACKET), (_PARSED, Dispatch.PARSED)):
        for name in wanted:
            if pattern.fullmatch(name) and (symbol := _function(elf, name)):
                return symbol, dispatch
    if named and (symbol := _function(elf, named)):
        return symbol, Dispatch.ANY
    # of a release to come: whatever has the name and is handed a session and a command
    others = [n for n in wanted if n.startswith("_Z16dispatch_command") and "P3THD" in n]
    symbols = [symbol for name in others if (symbol := elf.symbol(name))]
    return (symbols[0], Dispatch.ANY) if len(symbols) == 1 else None


def _function(elf: ElfFile, name: str) -> Symbol | None:
    return elf.symbol(name) or elf.symtab([name]).get(name)


def _plantable(image: Image, functions: Functions, address: int) -> bool:
    # Exported names are starts by definition; the unwinder's table, where there is one, confirms.
    return (not functions.known or functions.is_start(address)) and not is_stub(image, address)


def _leads_to(image: Image, functions: Functions, caller: Symbol, called: Symbol) -> bool:
    # Whether a function of the older kind comes to its answer by the newer, so that one probe sees
    # it once. It calls a method of its object; a compiler that guesses whose it will be compares
    # with that one's address, and either calls it there or has its code in here instead (GCC's
    # speculative devirtualisation: MariaDB 11.8 of Debian 13). Then only this one is entered.
    start, end = functions.range_of(caller.address) or (
        caller.address,
        caller.address + caller.size,
    )
    named, indirect = False, start == end  # of unknown length: as it is in most builds
    constants: dict[int, int] = {}
    while start < min(end, caller.address + _LONGEST_CALLER):
        instruction = image.instruction(start)
        for operation in instruction.operations:
            if isinstance(operation, Call | Jump):
                if operation.target == called.address:
                    return True
                indirect |= operation.target is None
            elif isinstance(operation, Set):
                constants[operation.target] = operation.value
                named |= operation.value == called.address
            elif isinstance(operation, Add) and operation.source in constants:
                constants[operation.target] = constants[operation.source] + operation.amount
                named |= constants[operation.target] == called.address
        if instruction.end <= start:
            break
        start = instruction.end
    return indirect and not named


# --- what accessors give away ---


def _walks(elf: ElfFile, evaluator: Evaluator) -> tuple[dict[str, Walk], dict[str, str]]:
    def trace(*names: str) -> Trace | None:
        for name in names:
            if symbol := elf.symbol(name):
                return evaluator.trace(symbol.address)
        return None

    found: dict[str, Walk | None] = {
        "connection": _number(trace("thd_get_thread_id")),
        "database": _database(trace),
        "executed": _executed(trace),
        "rows": _stored_argument(
            trace("_ZN3THD18set_sent_row_countEy", "_ZN3THD18set_sent_row_countEm")
        ),
        **_identity(trace),
    }
    absent = {
        name: f"no function of this build shows where a session keeps its {name}"
        for name in FIELDS
        if found.get(name) is None
    }
    if "host" not in absent or "address" not in absent:
        absent.pop("host", None)
        absent.pop("address", None)
    return {name: walk for name, walk in found.items() if walk is not None}, absent


_Trace = Callable[..., Trace | None]


def _identity(trace: _Trace) -> dict[str, Walk | None]:
    # MariaDB: const char *thd_user_name(THD *), thd_client_host, thd_client_ip (since 10.1).
    # MySQL since 5.7: LEX_CSTRING Security_context::user() const and its like, of what
    # thd_get_security_context(THD *, Security_context **) stores.
    maria = {
        "user": _text(trace("thd_user_name"), _NUL_ENDED),
        "host": _text(trace("thd_client_host"), _NUL_ENDED),
        "address": _text(trace("thd_client_ip"), _NUL_ENDED),
    }
    if any(maria.values()):
        return maria
    context = _stored_pointer(
        trace("thd_get_security_context", "_Z24thd_get_security_contextP3THDPP16Security_context")
    )
    if context is None:
        return _older_identity(trace)
    return {
        name: _behind(context, _counted(trace(f"_ZNK16Security_context{accessor}Ev")))
        for name, accessor in (("user", "4user"), ("host", "4host"), ("address", "2ip"))
    }


def _older_identity(trace: _Trace) -> dict[str, Walk | None]:
    # MySQL 5.6: Security_context::set_host(const char *) and set_ip keep the pointer that they are
    # given, which the accessors' results begin with; set_user(char *) frees and replaces its only
    # member. restore_security_context(THD *, Security_context *) sets which one a session has.
    restored = trace("_ZN16Security_context24restore_security_contextEP3THDPS_")
    found = restored.writes if restored is not None else ()
    contexts = {
        write.place.offset
        for write in found
        if write.place.root == 1 and not write.place.path and write.value == Pointer(2, (), 0)
    }
    context = _walk(Pointer(0, (), contexts.pop()), _WHOLE) if len(contexts) == 1 else None
    if context is None:
        return {}
    return {
        "user": _behind(context, _replaced(trace("_ZN16Security_context8set_userEPc"))),
        "host": _behind(context, _held(trace, "8set_hostEPKc", "8get_hostEv")),
        "address": _behind(context, _held(trace, "6set_ipEPKc", "6get_ipEv")),
    }


def _held(trace: _Trace, setter: str, getter: str) -> Walk | None:
    # The one place where the text stays, if the accessor's result is what begins there.
    stored = _stored_argument(trace(f"_ZN16Security_context{setter}"))
    value = _only(trace(f"_ZN16Security_context{getter}"))
    if stored is None or not isinstance(value, Pointer) or value.path or value.root != 0:
        return None
    return Walk(stored.offsets, _NUL_ENDED) if stored.offsets == (value.offset,) else None


def _replaced(trace: Trace | None) -> Walk | None:
    # The one place in the object that is both read and written.
    if trace is None or not trace.complete:
        return None
    written = {w.place for w in trace.writes if w.place.root == 0 and w.size == 8}
    read = {r.place for r in trace.reads if r.place.root == 0 and r.size == 8}
    if len(written) != 1 or written != read:
        return None
    return _walk(written.pop(), _NUL_ENDED)


def _database(trace: _Trace) -> Walk | None:
    # const char *thd_current_db(THD *) (MariaDB since 10.1) returns db.str, of a LEX_CSTRING.
    found = trace("thd_current_db")
    if found is not None and (walk := _address(found) or _text(found, _NUL_ENDED)):
        return msgspec.structs.replace(walk, size=_NUL_ENDED)
    # bool THD::set_db(const LEX_CSTRING &) stores the length behind the pointer (MySQL since 5.7,
    # MariaDB since 10.3); before, set_db(const char *, size_t) and db_length.
    for names, length in (
        (("_ZN3THD6set_dbERK17MYSQL_LEX_CSTRING", "_ZN3THD6set_dbERK18st_mysql_const_lex_string",
          "_ZN3THD6set_dbERK25st_mysql_const_lex_string",
          "_ZN3THD6set_dbEPK25st_mysql_const_lex_string"), Pointer(1, (8,), 0)),
        (("_ZN3THD6set_dbEPKcm",), Pointer(2, (), 0)),
    ):  # fmt: skip
        found = trace(*names)
        if found is not None:
            places = {
                write.place.offset - 8
                for write in found.writes
                if write.value == length and write.place.root == 0 and not write.place.path
            }
            if len(places) == 1 and 0 <= (offset := places.pop()) < _FURTHEST:
                return Walk((offset,), _COUNTED)
    # bool db_is_default_db(const char *, size_t, const THD *) compares with both (MySQL 5.6).
    found = trace("_Z16db_is_default_dbPKcmPK3THD")
    if found is not None and found.complete:
        read = sorted(r.place.offset for r in found.reads if r.size == 8 and r.place.root == 2)
        if (
            len(read) == len(found.reads) == 2
            and read[1] == read[0] + 8
            and 0 <= read[0] < _FURTHEST
        ):
            return Walk((read[0],), _COUNTED)
    return None


def _executed(trace: _Trace) -> Walk | None:
    # LEX_STRING *thd_query_string(THD *) (MariaDB; MySQL 5.5, 5.6) returns the place itself;
    # LEX_CSTRING thd_query_unsafe(THD *) (MySQL since 5.7) both words of it.
    found = trace("thd_query_string")
    if found is not None and (walk := _address(found)):
        return msgspec.structs.replace(walk, size=_COUNTED)
    return _counted(trace("thd_query_unsafe", "_Z16thd_query_unsafeP3THD"))


def _results(trace: Trace) -> list[Value]:
    return [value for value in trace.results if not isinstance(value, int)]


def _walk(place: Pointer, size: int) -> Walk | None:
    offsets = (*place.path, place.offset)
    known = place.root == 0 and len(offsets) <= 4 and all(0 <= o < _FURTHEST for o in offsets)
    return Walk(offsets, size) if known else None


def _only(trace: Trace | None) -> Value:
    # What the function returns, if that is one thing on every path.
    values = _results(trace) if trace is not None and trace.complete else []
    return values[0] if len(values) == 1 else None


def _loaded(value: Value) -> Pointer | None:
    # The place that a pointer was loaded from.
    if isinstance(value, Pointer) and value.path and not value.offset:
        return Pointer(value.root, value.path[:-1], value.path[-1])
    return None


def _text(trace: Trace | None, size: int) -> Walk | None:
    place = _loaded(_only(trace))
    return _walk(place, size) if place is not None else None


def _number(trace: Trace | None) -> Walk | None:
    value = _only(trace)
    if isinstance(value, Scalar) and value.size == _HALF:
        return _walk(value.place, _HALF)
    place = _loaded(value)
    return _walk(place, _WHOLE) if place is not None else None


def _address(trace: Trace) -> Walk | None:
    # A place within the object itself, whose address is returned.
    value = _only(trace)
    if isinstance(value, Pointer) and not value.path and value.offset:
        return _walk(value, _NUL_ENDED)
    return None


def _counted(trace: Trace | None) -> Walk | None:
    # A pointer is returned, and what stands behind it was read as well: the second half.
    place = _loaded(_only(trace))
    if place is None or trace is None:
        return None
    length = place._replace(offset=place.offset + 8)
    if not any(read.place == length and read.size == 8 for read in trace.reads):
        return None
    return _walk(place, _COUNTED)


def _stored_argument(trace: Trace | None) -> Walk | None:
    # The one place in the object itself that the argument is stored at.
    if trace is None:
        return None
    places = {
        write.place
        for write in trace.writes
        if write.value == Pointer(1, (), 0) and write.size == 8 and not write.place.path
    }
    return _walk(places.pop(), _WHOLE) if len(places) == 1 else None


def _stored_pointer(trace: Trace | None) -> Walk | None:
    # What is stored through the second argument: a pointer of the object's.
    if trace is None:
        return None
    values = {write.value for write in trace.writes if write.place == Pointer(1, (), 0)}
    place = _loaded(values.pop()) if len(values) == 1 else None
    return _walk(place, _WHOLE) if place is not None else None


def _behind(first: Walk, second: Walk | None) -> Walk | None:
    if second is None or len(first.offsets) + len(second.offsets) > 4:
        return None
    return Walk((*first.offsets, *second.offsets), second.size)


def version(elf: ElfFile) -> str:
    """What the server's constants say it is; empty if they do not. For people only."""
    for prefix, pattern in _VERSIONS:
        for found in elf.matches(elf.constants, prefix, pattern):
            return found[1].decode("ascii", "replace")
    return ""


def refusal(elf: ElfFile) -> str:
    """Why a file that is a server by its name cannot be shown."""
    try:
        exports = is_server(elf)
    except NotExecutable as error:
        return str(error)
    if exports:
        return f"exports no function like {DISPATCH}"
    return f"exports none of its functions, and {DISPATCH} is not in a symbol table either"
