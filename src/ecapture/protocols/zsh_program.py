# SPDX-License-Identifier: Apache-2.0
"""What zsh made of a command, as text: programs in, as zsh keeps them in memory.

zsh does not keep the text of what it reads from files. It parses a command into words of 32 bits
and strings behind them, runs those, and can print them: so do we, in the same style (a line for
each command of a list, tabs in front of what is inside another). Comments and spelling variants
are gone by then; ``functions`` in zsh shows no more.

Layout (Src/zsh.h, Src/parse.c, Src/text.c of zsh 5.3 to 5.9): the low five bits of a word say what
it begins, the rest is its own. A string is a word: of up to three characters in the word itself,
else an offset. A list is words that begin commands, the last one marked, or a mark that it is
empty. What may be skipped says how far.

Invariants: words are read forwards only, so work is bounded by their number; text is bounded, as is
the depth of what is inside what. Whatever is not as described raises ProtocolError: a text is right
or there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from ecapture._wire import ZSH_EPROG
from ecapture.errors import ProtocolError

LONGEST_TEXT: Final = 8 << 20
"""Bytes that are taken and written for one program: equal strings stand in it once only."""

_DEEPEST: Final = 64
TOKENS: Final = b"#$^*(())$=|{}[]`<>>?~`,-!'\"\\\\"
"""What characters with a meaning become while zsh parses, from 0x84 on (Src/lex.c, ztokens)."""

_FIRST_TOKEN, _NOTHING = 0x84, 0xA1
_WORD: Final = 4
_UNTOKENIZED: Final = bytes(
    TOKENS[code - _FIRST_TOKEN] if 0 <= code - _FIRST_TOKEN < len(TOKENS) else code
    for code in range(256)
)


class _Code(IntEnum):
    # What a word begins (WC_END and the others).
    END = 0
    LIST = 1
    SUBLIST = 2
    PIPE = 3
    REDIR = 4
    ASSIGN = 5
    SIMPLE = 6
    TYPESET = 7
    SUBSH = 8
    CURSH = 9
    TIMED = 10
    FUNCDEF = 11
    FOR = 12
    SELECT = 13
    WHILE = 14
    REPEAT = 15
    CASE = 16
    IF = 17
    COND = 18
    ARITH = 19
    AUTOFN = 20
    TRY = 21


_ASYNC, _DISOWN, _LAST, _PLAIN = 4, 8, 16, 32  # of a list
_AND, _COPROC, _NOT, _PLAIN_SUBLIST = 1, 4, 8, 16  # of a sublist
_REDIRECTIONS: Final = (
    *(b">", b">|", b">>", b">>|", b"&>", b"&>|", b"&>>", b"&>>|", b"<>", b"<", b"<<", b"<<-"),
    *(b"<<<", b"<&", b">&", b"", b"<", b">"),
)
_HERE_STRING: Final = 12
_MERGES: Final = (13, 14)
_READING: Final = frozenset((*range(8, 14), 16))  # those whose descriptor is 0 unless it is told
_VARIABLE, _FROM_DOCUMENT = 0x20, 0x40  # of a redirection
_FOR_LIST, _FOR_EXPRESSIONS = 1, 2
_ELSE: Final = 3
_ENDS_OF_CASE: Final = (b"", b";;", b";&", b";|")  # WC_CASE_OR, AND and TESTAND
_COND_NOT, _COND_AND, _COND_OR, _COND_FIRST, _COND_MODULE, _COND_INFIX = 0, 1, 2, 3, 18, 19
_COMPARISONS: Final = (
    *(b"=", b"==", b"!=", b"<", b">", b"-nt", b"-ot", b"-ef", b"-eq", b"-ne", b"-lt", b"-gt"),
    *(b"-le", b"-ge", b"=~"),
)
_WITH_PATTERN: Final = 3  # comparisons that have a pattern


def text_of(head: bytes, program: bytes) -> bytes:
    """Return a program as text, as zsh keeps texts (its bytes may still stand behind a Meta).

    ``head`` is the structure that describes it (``struct eprog``), ``program`` words and strings.

    Raises:
        ProtocolError: it is not such a program, or too large.
    """
    if len(head) != ZSH_EPROG.size:
        raise _refuse("its description is cut")
    *_, words, strings = ZSH_EPROG.unpack(head)
    size = strings - words
    if size < _WORD or size % _WORD or size > len(program):
        raise _refuse("its words and strings are not where it says")
    reader = _Printer(memoryview(program[:size]).cast("I"), program[size:])
    return reader.run()


class _Printer:
    def __init__(self, words: memoryview[int], strings: bytes) -> None:
        self._words = words
        self._strings = strings
        self._base = 0  # of the strings of the function that is read
        self._at = 0
        self._out: list[bytes] = []
        self._size = 0
        self._indent = 0
        self._depth = 0
        self._documents: list[bytes] = []
        self._compounds: dict[int, Callable[[], None]] = {
            _Code.TYPESET: self._declaration,
            _Code.SUBSH: self._group,
            _Code.CURSH: self._group,
            _Code.TRY: self._always,
            _Code.TIMED: self._timed,
            _Code.FUNCDEF: self._function,
            _Code.FOR: self._for,
            _Code.SELECT: self._select,
            _Code.WHILE: self._while,
            _Code.REPEAT: self._repeat,
            _Code.CASE: self._case,
            _Code.IF: self._if,
            _Code.COND: self._test,
            _Code.ARITH: self._arithmetic,
            _Code.AUTOFN: self._autoload,
        }

    def run(self) -> bytes:
        self._list()
        self._write_documents()
        text = b"".join(self._out)
        return text.translate(_UNTOKENIZED, bytes((_NOTHING,)))

    # --- words and strings ---

    def _word(self) -> int:
        if self._at >= len(self._words):
            raise _refuse("it ends early")
        word = self._words[self._at]
        self._at += 1
        return word

    def _next_is(self, code: _Code) -> bool:
        return self._at < len(self._words) and self._words[self._at] & 31 == code

    def _data(self, code: _Code) -> int:
        word = self._word()
        if word & 31 != code:
            raise _refuse(f"{word & 31} where {code.name} is expected")
        return word >> 5

    def _jump(self, to: int) -> None:
        if not self._at <= to <= len(self._words):
            raise _refuse("a part is not as long as it says")
        self._at = to

    def _string(self) -> bytes:
        word = self._word()
        if word in (6, 7):
            return b""
        if word & 2:
            inside = bytes(word >> shift & 0xFF for shift in (3, 11, 19))
            return inside.split(b"\0", 1)[0]
        start = self._base + (word >> 2)
        end = self._strings.find(b"\0", start)
        if end < 0:
            raise _refuse("a string is not in it")
        self._spend(end - start)
        return self._strings[start:end]

    def _strings_of(self, number: int) -> bytes:
        if number > len(self._words) - self._at:
            raise _refuse("it ends early")
        return b" ".join([self._string() for _ in range(number)])

    # --- text ---

    def _write(self, text: bytes) -> None:
        self._spend(len(text))
        if text:
            self._out.append(text)

    def _spend(self, size: int) -> None:
        self._size += size
        if self._size > LONGEST_TEXT:
            raise _refuse("its text is too long")

    def _new_line(self) -> None:
        self._write_documents()
        self._write(b"\n" + b"\t" * self._indent)

    def _write_documents(self) -> None:
        for document in self._documents:
            self._write(b"\n" + document)
        self._documents = []

    def _inside(self, before: bytes, after: bytes) -> None:
        # A list on lines of its own.
        self._write(before)
        self._indent += 1
        self._new_line()
        self._list()
        self._indent -= 1
        self._new_line()
        self._write(after)

    def _condition(self, word: bytes) -> None:
        self._write(word)
        self._indent += 1
        self._list()
        self._indent -= 1
        self._new_line()

    # --- lists ---

    def _list(self) -> None:
        if self._next_is(_Code.END):
            self._at += 1
            return
        while not self._item():
            self._new_line()

    def _item(self) -> bool:
        # A command of a list; whether it is the last.
        kind = self._data(_Code.LIST)
        if kind & _PLAIN:
            self._at += 1  # the number of its line
            self._command()
        else:
            self._sublists()
        if kind & _ASYNC:
            self._write(b" &|" if kind & _DISOWN else b" &")
        return bool(kind & _LAST)

    def _sublists(self) -> None:
        while True:
            data = self._data(_Code.SUBLIST)
            empty = not data & _PLAIN_SUBLIST and not self._next_is(_Code.PIPE)
            if data & (_NOT | _COPROC):
                self._write(b"!" if data & _NOT else b"coproc")
                self._write(b"" if empty else b" ")
            if data & _PLAIN_SUBLIST:
                self._at += 1  # the number of its line
                self._command()
            elif not empty:
                self._pipeline()
            if not data & 3:
                return
            self._write(b" && " if data & 3 == _AND else b" || ")

    def _pipeline(self) -> None:
        while True:
            more = self._data(_Code.PIPE) & 1
            if more:
                self._at += 1  # where the next one is
            self._command()
            if not more:
                return
            self._write(b" | ")

    def _command(self) -> None:
        self._deeper()
        redirections = []
        while self._next_is(_Code.REDIR):
            redirections.append(self._redirection())
        before = len(self._out)
        if self._next_is(_Code.ASSIGN) or self._next_is(_Code.SIMPLE):
            self._simple()
        else:
            self._compound()
        for redirection in redirections:
            self._write(b" " + redirection if len(self._out) > before else redirection)
        self._depth -= 1

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refuse("too much is inside one another")

    def _redirection(self) -> bytes:
        data = self._data(_Code.REDIR)
        kind = data & 31
        if kind >= len(_REDIRECTIONS) or not _REDIRECTIONS[kind]:
            raise _refuse(f"no redirection {kind}")
        descriptor = self._word()
        name = self._string()
        terminators = (self._string(), self._string()) if data & _FROM_DOCUMENT else None
        usual = 0 if kind in _READING else 1
        told = b"" if descriptor == usual else b"%d" % descriptor
        if data & _VARIABLE:
            told = b"{" + self._string() + b"}"
        if terminators is not None and kind == _HERE_STRING:
            self._documents.append(name + terminators[1])
            return told + b"<<" + terminators[0]
        return told + _REDIRECTIONS[kind] + (b"" if kind in _MERGES else b" ") + name

    def _simple(self) -> None:
        assignments = []
        while self._next_is(_Code.ASSIGN):
            assignments.append(self._assignment())
        arguments = self._strings_of(self._data(_Code.SIMPLE))
        self._write(b" ".join([*assignments, *([arguments] if arguments else [])]))

    def _assignment(self, *, declared: bool = False) -> bytes:
        data = self._data(_Code.ASSIGN)
        name = self._string()
        adds = b"+=" if data & 2 else b"="
        if data & 1:
            return name + adds + b"(" + self._strings_of(data >> 2) + b")"
        value = self._string()
        return name if declared and data & 2 else name + adds + value

    # --- what has others inside ---

    def _compound(self) -> None:
        if self._at >= len(self._words):
            raise _refuse("it ends early")
        code = self._words[self._at] & 31
        print_it = self._compounds.get(code)
        if print_it is None:
            raise _refuse(f"{code} where a command is expected")
        print_it()

    def _declaration(self) -> None:
        self._write(self._strings_of(self._data(_Code.TYPESET)))
        for _ in range(self._word()):
            self._write(b" " + self._assignment(declared=True))

    def _group(self) -> None:
        shell = self._next_is(_Code.SUBSH)
        end = (self._word() >> 5) + self._at
        self._at += 1  # used by "always" only
        self._inside(*((b"(", b")") if shell else (b"{", b"}")))
        self._jump(end)

    def _always(self) -> None:
        end = self._data(_Code.TRY) + self._at
        end_of_block = (self._word() >> 5) + self._at
        self._inside(b"{", b"} ")
        self._jump(end_of_block)
        self._inside(b"always {", b"}")
        self._jump(end)

    def _timed(self) -> None:
        self._write(b"time")
        if self._data(_Code.TIMED):
            self._write(b" ")
            self._indent += 1
            self._sublists() if self._next_is(_Code.SUBLIST) else self._pipeline()
            self._indent -= 1

    def _function(self) -> None:
        end = self._data(_Code.FUNCDEF) + self._at
        number = self._word()
        names = self._strings_of(number)
        base = self._base
        self._base += self._word()
        self._at += 2  # numbers of strings and patterns
        if self._at + 1 < end <= len(self._words) and self._words[self._at] in (0, 1):
            self._at += (
                1  # whether it is traced, since 5.8: neither begins a list that is not empty
            )
        self._inside(names + (b" () {" if number else b"() {"), b"}")
        self._base = base
        self._jump(end)
        if not number:
            end = self._word() + self._at - 1
            arguments = self._strings_of(self._word())
            self._write(b" " + arguments if arguments else b"")
            self._jump(end)

    def _for(self) -> None:
        kind = self._data(_Code.FOR) & 3
        self._write(b"for ")
        if kind == _FOR_EXPRESSIONS:
            expressions = [self._string() for _ in range(3)]
            self._inside(b"((" + b"; ".join(expressions) + b")) do", b"done")
            return
        self._write(self._strings_of(self._word()))
        self._over_list(listed=kind == _FOR_LIST)

    def _select(self) -> None:
        kind = self._data(_Code.SELECT) & 1
        self._write(b"select " + self._string())
        self._over_list(listed=kind == _FOR_LIST)

    def _over_list(self, *, listed: bool) -> None:
        if listed:
            self._write(b" in " + self._strings_of(self._word()))
        self._new_line()
        self._inside(b"do", b"done")

    def _while(self) -> None:
        self._condition(b"until " if self._data(_Code.WHILE) & 1 else b"while ")
        self._inside(b"do", b"done")

    def _repeat(self) -> None:
        self._data(_Code.REPEAT)
        self._write(b"repeat " + self._string())
        self._new_line()
        self._inside(b"do", b"done")

    def _case(self) -> None:
        end = (self._data(_Code.CASE) >> 3) + self._at
        self._write(b"case " + self._string() + b" in")
        self._indent += 1
        while self._at < end:
            kind = self._data(_Code.CASE) & 7
            if kind >= len(_ENDS_OF_CASE):
                raise _refuse("an alternative of no known kind")
            patterns = []
            for _ in range(self._word()):
                patterns.append(self._string())
                self._at += 1  # its number
            self._new_line()
            self._write(b"(" + b" | ".join(patterns) + b") ")
            self._indent += 1
            self._list()
            self._indent -= 1
            self._write(b" " + _ENDS_OF_CASE[kind])
        self._indent -= 1
        self._jump(end)
        self._new_line()
        self._write(b"esac")

    def _if(self) -> None:
        end = (self._data(_Code.IF) >> 2) + self._at
        word = b"if "
        while self._at < end:
            kind = self._data(_Code.IF) & 3
            if kind == _ELSE:
                self._inside(b"else", b"")
            else:
                self._condition(word)
                self._inside(b"then", b"")
            word = b"elif "
        self._jump(end)
        self._write(b"fi")

    def _test(self) -> None:
        self._write(b"[[ ")
        self._expression(None)
        self._write(b" ]]")

    def _expression(self, outer: int | None) -> None:
        self._deeper()
        data = self._data(_Code.COND)
        kind = data & 127
        if kind in (_COND_AND, _COND_OR):
            bare = outer is None or outer == kind
            self._write(b"" if bare else b"( ")
            self._expression(kind)
            self._write(b" && " if kind == _COND_AND else b" || ")
            self._expression(kind)
            self._write(b"" if bare else b" )")
        elif kind == _COND_NOT:
            self._write(b"! ")
            self._expression(kind)
        else:
            self._operation(kind, data >> 7)
        self._depth -= 1

    def _operation(self, kind: int, arguments: int) -> None:
        if kind < _COND_MODULE:
            left, right = self._string(), self._string()
            number = kind - _COND_FIRST
            self._write(b" ".join((left, _COMPARISONS[number], right)))
            self._at += number < _WITH_PATTERN  # the number of the pattern
        elif kind == _COND_MODULE:
            self._write(self._string() + b" " + self._strings_of(arguments))
        elif kind == _COND_INFIX:
            name, left, right = self._string(), self._string(), self._string()
            self._write(b" ".join((left, name, right)))
        else:
            self._write(b"-" + bytes((kind,)) + b" " + self._string())

    def _arithmetic(self) -> None:
        self._data(_Code.ARITH)
        self._write(b"((" + self._string() + b"))")

    def _autoload(self) -> None:
        self._data(_Code.AUTOFN)
        self._write(b"builtin autoload -X")


def _refuse(reason: str) -> ProtocolError:
    return ProtocolError(protocol="zsh program", offset=0, reason=reason)
