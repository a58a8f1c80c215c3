# SPDX-License-Identifier: Apache-2.0
r"""Secrets on command lines, replaced: ``--redact`` for what shells are told to do.

Beside what ``credentials`` finds in any text (assignments, ``--name=value``, header fields, URLs,
tokens known by their looks), the words of each simple command are read:

1. the whole value of what is assigned to the name of a credential (``--password=a\ b``), and the
   word behind an option that is named like one (``--password X``);
2. values of options that have no telling name, by program: ``OPTIONS``, ``LOGINS``, ``USERS``;
3. words that a program takes as a secret by their place: ``LAST``, ``SETTERS``;
4. what is given to a program that reads a secret (``echo X | sudo -S``): ``READERS``;
5. the password in a statement of SQL (``IDENTIFIED BY 'X'``).

A program counts wherever its name stands (``docker exec db mysql -pX``), and what is in quotes and
has blanks is read as commands, too (``ssh host 'mysql -pX'``).

Invariants: nothing raises; every search is linear; text that is no shell's is masked all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ecapture.pipeline.credentials import REPLACEMENT, mask_text, names_credential, word

OPTIONS: Final = {
    "-p": (
        *("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlslap", "mysqlcheck"),
        *("mysqlshow", "mariadb", "mariadb-dump", "mariadb-admin", "sshpass", "mongo", "mongosh"),
        *("mongodump", "7z", "7za", "useradd", "usermod", "rdesktop"),
    ),
    "-P": ("zip", "unzip", "sqlcmd", "bcp", "ipmitool", "mosquitto_pub", "mosquitto_sub"),
    "-a": ("redis-cli",),
    "-w": ("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldappasswd", "ldapwhoami"),
    "-N": ("ssh-keygen",),
    "-storepass": ("keytool", "jarsigner"),
    "-keypass": ("keytool", "jarsigner"),
    "--from-literal": ("kubectl", "oc"),
}
"""Options whose value is a secret, and the programs they are so of. Glued to it or not."""

LOGINS: Final = ("docker", "podman", "buildah", "skopeo", "helm")
"""Programs whose ``-p`` has a secret behind the word ``login`` only; elsewhere it has ports."""

GLUED: Final = ("mysql", "mariadb", "7z")
"""Programs (by how their names begin) of which ``-p`` alone asks for the secret."""

USERS: Final = {
    "curl": ("-u", "--user", "-U", "--proxy-user"),
    "wget": ("--user",),
    "http": ("-a", "--auth"),
    "https": ("-a", "--auth"),
    "smbclient": ("-U", "--user"),
}
"""Options whose value is a user and, behind a colon or %, a secret."""

FLAGS: Final = {
    "curl": "#012346fGgIiJjkLlNnOqRSsvZ",
    "zip": "0123456789DejlmoqrSuvy",
    "unzip": "aBCDfjlLnopqtuvX",
    "sshpass": "v",
    "ssh-keygen": "q",
    "useradd": "lMmNrU",
    **dict.fromkeys(OPTIONS["-w"], "AcLMnuvxZ"),
}
"""Options without a value, which may stand before another in one word (``curl -ku user:X``)."""

LAST: Final = {"htpasswd": "-b", "wpa_passphrase": ""}
"""Programs whose last word is a secret; if this option is given, where one is named."""

SETTERS: Final = ("set", "setenv", "aws", "nmcli")
"""Programs of which the word behind the name of a credential is its value."""

READERS: Final[dict[str, tuple[str, ...]]] = {
    "sudo": ("-S", "--stdin"),
    "passwd": (),
    "smbpasswd": (),
    "chpasswd": (),
    "cryptsetup": (),
    "kinit": (),
    **dict.fromkeys(LOGINS, ("--password-stdin",)),
    **dict.fromkeys(("gpg", "gpg2"), ("--passphrase-fd",)),
    "gh": ("--with-token",),
}
"""Programs that read a secret from their input; if one of the options is given, where any is named.
"""

_PRINTERS: Final = ("echo", "printf", "print")
_WRAPPERS: Final = (
    *("sudo", "doas", "env", "nohup", "time", "command", "exec", "builtin", "nice", "noglob"),
    *("then", "do", "else", "!", "{", "if", "while"),
)
_WRAPPER_VALUES: Final = ("-u", "-g", "-U", "-C", "-h", "-n", "-R", "-D", "-T")
_EXPORTERS: Final = ("export", "declare", "typeset", "readonly", "local")
_HTTP: Final = ("curl", "wget", "http", "https")
_KNOWN: Final = frozenset(
    (*(name for names in OPTIONS.values() for name in names), *LOGINS, *USERS, *LAST)
)
_DEEPEST: Final = 3  # quotes within quotes
_WORD: Final = re.compile(
    r"""(?P<word>(?:'[^']*+'?|"(?:[^"\\]|\\.)*+"?|\\.|[^\s;&|<>()`'"\\])++)"""
    r"""|(?P<into>&>>?|<<<|<<-?|[<>]{1,2}[&|]?)"""
    r"""|(?P<end>\|\|?|&&?|[;\n()`])""",
    re.DOTALL,
)
_QUOTED: Final = re.compile(r"""'(?P<one>[^']*+)|"(?P<two>(?:[^"\\]|\\.)*+)|\\.""", re.DOTALL)
_ONE_STRING: Final = re.compile(r"""'[^']*+'|"(?:[^"\\]|\\.)*+\"""", re.DOTALL)
_OPTION: Final = re.compile(r"--?[A-Za-z][\w-]*")
_PROMPT: Final = re.compile(r"""(["']).*[:=][ \t]*+\1""", re.DOTALL)
# As it stands, in quotes with a backslash, or in single quotes within single quotes.
_SQL: Final = re.compile(
    r"""(?<!\w)(?:password|identified\s{1,8}+(?:with\s{1,8}+\S{1,64}+\s{1,8}+)?by)"""
    r"""(?:\s{1,8}+password)?(?:\s{1,8}+|\s{0,8}+\(\s{0,8}+)('\\''|\\?["'])""",
    re.IGNORECASE,
)
_ASSIGNED: Final = re.compile(r"""["']?\w+=""")
_ASSIGNMENT: Final = re.compile(r"""(["']?)(-{0,2}[\w.\-]{1,128}+)\+?=""")
_FIELD: Final = re.compile(r"(-{0,2}[A-Za-z][\w\-]{0,64}+):(?!//)")
_PASS: Final = re.compile(r"(pass:)(.+)", re.DOTALL)  # openssl-passphrase-options(1)
_USER_SECRET: Final = re.compile(r"""(["']?[^:%]*+[:%])(.*?)(["']?)""", re.DOTALL)
# Stands behind a value while ``mask_text`` looks, which takes more signs for a part of one than
# shells do.
_STOP: Final = "\v"
_MORE_SIGNS: Final = tuple(";|()`")


class _Word(NamedTuple):
    start: int
    end: int
    text: str


class _Command:
    # A simple command: its words, its here-strings, the words that its here-documents end with
    # (and where they begin at the soonest), and what stands behind it.
    __slots__ = ("behind", "documents", "given", "words")

    def __init__(self) -> None:
        self.words: list[_Word] = []
        self.given: list[_Word] = []
        self.documents: list[_Word] = []
        self.behind = ""


class _Found:
    # Where secrets stand, and where values are over.

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.stops: list[int] = []
        self.documents = False

    def word(self, found: _Word) -> None:
        self.spans.append((found.start, found.end))


def mask_command(text: str) -> str:
    """The command with its secrets replaced; itself if it has none."""
    found = _Found()
    _search(text, 0, len(text), found, 0)
    for sql in _SQL.finditer(text):
        end = text.find(sql[1], sql.end())
        found.spans.append((sql.end(), len(text) if end < 0 else end))
    # In a here-document a value may have any sign.
    stops = [] if found.documents or _STOP in text else found.stops
    masked = _replaced(text, found.spans, stops)
    raw = masked.encode("utf-8", "surrogatepass")
    changed = mask_text(raw, word)
    if changed is not raw and changed != raw:
        masked = changed.decode("utf-8", "surrogatepass")
    return masked.replace(_STOP, "") if stops else masked


def _replaced(text: str, spans: list[tuple[int, int]], stops: list[int]) -> str:
    whole: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if whole and start < whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        elif end > start:
            whole.append((start, end))
    edits = [(start, end, REPLACEMENT) for start, end in whole]
    out, at = [], 0
    for start, end, new in sorted([*edits, *((stop, stop, _STOP) for stop in stops)]):
        if start >= at:
            out += [text[at:start], new]
            at = end
    return "".join(out) + text[at:] if out else text


def _search(text: str, start: int, end: int, found: _Found, depth: int) -> None:
    printed: list[_Word] = []
    documents: list[_Word] = []
    for command in _commands(text, start, end):
        words = command.words
        at = _program(words)
        _mask_words(text, words, at, found, nested=depth > 0)
        if _reads_secret(words, at):
            for one in (*printed, *command.given):
                found.word(one)
            for document in (*documents, *command.documents):
                found.spans.append(_document(text, document, end))
        printed, documents = [], []
        if at < len(words) and command.behind == "|":
            name = _name(words[at].text)
            if name in _PRINTERS:
                printed = [one for one in words[at + 1 :] if one.text[:1] != "-"]
            elif name == "cat":
                documents = command.documents
        found.documents = found.documents or bool(command.documents)
        if depth < _DEEPEST:
            for one in (*words, *command.given):
                _search_quoted(text, one, found, depth + 1)


def _search_quoted(text: str, found: _Word, spans: _Found, depth: int) -> None:
    # What may be commands for another shell.
    if depth == 1 and _PROMPT.fullmatch(found.text):
        # This quote ends a question (read -p 'Password: ' X), and begins no value.
        spans.stops.append(found.end - 1)
    for quoted in _QUOTED.finditer(text, found.start, found.end):
        kind = quoted.lastgroup
        if kind and any(blank in quoted[kind] for blank in " \t\n"):
            _search(text, *quoted.span(kind), spans, depth)


def _commands(text: str, start: int, end: int) -> Iterator[_Command]:
    command, into = _Command(), ""
    for match in _WORD.finditer(text, start, end):
        kind = match.lastgroup
        if kind == "word":
            found = _Word(match.start(), match.end(), match["word"])
            if into == "<<<":
                command.given.append(found)
            elif into.startswith("<<"):
                command.documents.append(found)
            elif not into:
                command.words.append(found)
            into = ""
        elif kind == "into":
            into = match["into"]
            words = command.words
            if words and words[-1].end == match.start() and words[-1].text.isdecimal():
                words.pop()  # the number of a descriptor
        else:
            into = ""
            if command.words:
                command.behind = match["end"]
                yield command
                command = _Command()
    if command.words:
        yield command


def _document(text: str, ending: _Word, end: int) -> tuple[int, int]:
    # Where a here-document stands.
    start = text.find("\n", ending.end, end)
    if start < 0:
        return end, end
    last = text.find("\n" + _unquoted(ending.text), start, end)
    return start + 1, end if last < 0 else last


def _unquoted(text: str) -> str:
    return text.strip("\"'")


def _name(text: str) -> str:
    # Of a program.
    return _unquoted(text).rpartition("/")[2]


def _program(words: list[_Word]) -> int:
    # Which word names the program.
    skipped = False
    for index, found in enumerate(words):
        text = found.text
        if skipped:
            skipped = False
            continue
        skipped = index > 0 and text in _WRAPPER_VALUES
        if _ASSIGNED.match(text) or _name(text) in _WRAPPERS or (index and text[:1] == "-"):
            continue
        return index
    return len(words)


class _Options:
    # What is known of the programs that were named; of two that a word may be meant for, both.

    def __init__(self) -> None:
        self.program = ""
        self.short: list[str] = []
        self.users: list[str] = []
        self.asks = False
        self.flags = ""

    def name(self, program: str) -> None:
        self.program = program
        short = [option for option, programs in OPTIONS.items() if program in programs]
        if "-p" in short:
            self.asks = program.startswith(GLUED)
        self.short += short
        self.users += USERS.get(program, ())
        self.flags = FLAGS.get(program, self.flags)

    def split(self, text: str) -> tuple[str, int]:
        # An option that has a secret, and at which place of the word its value begins.
        for option in (*self.users, *self.short):
            if option.startswith("--"):
                if text == option:
                    return option, len(text)
                if text.startswith(f"{option}="):
                    return option, len(option) + 1
                continue
            if text.startswith(option):
                return option, len(option)
            if self.flags and text[:1] == "-" and len(option) == 2:
                rest = text[1:].lstrip(self.flags.replace(option[1], ""))
                if rest[:1] == option[1]:
                    return option, len(text) - len(rest) + 1
        return "", 0


def _mask_words(text: str, words: list[_Word], at: int, spans: _Found, *, nested: bool) -> None:
    known = _Options()
    previous, named = "", False
    after = 0
    for index, found in enumerate(words):
        before, previous = previous, ""
        name = _name(found.text)
        exported = (
            index < at or found.text[:1] == "-" or _has_value(before) or known.program in _EXPORTERS
        )
        if _mask_assigned(text, found, spans, quoted=exported, nested=nested):
            continue
        if index < at:
            continue
        if index == at or (name in _KNOWN and not before and "://" not in found.text):
            known.name(name)
            after = index + 1
            continue
        if name == "login" and known.program in LOGINS:
            known.short.append("-p")
            known.asks = False
        elif named and known.program in SETTERS and found.text[:1] != "-":
            spans.word(found)
        else:
            previous = _mask_option(found, before, known, spans)
        named = names_credential(_unquoted(found.text).encode("utf-8", "replace"), "anywhere")
    option = LAST.get(known.program)
    if option is not None and (not option or _has_option(words, (option,))):
        plain = [found for found in words[after:] if found.text[:1] != "-"]
        for found in plain[-1:]:
            spans.word(found)


def _has_value(option: str) -> bool:
    # Behind ``-c`` and ``-lc`` stands a command.
    return option != "" and (option.startswith("--") or not option.endswith("c"))


def _mask_option(found: _Word, before: str, known: _Options, spans: _Found) -> str:
    # Masks a word with regard to the option before it; the option that this word is.
    text = found.text
    if before in known.users:
        _mask_user(found, spans)
        return ""
    if before and _takes_secret(before, known) and text[:1] != "-":
        spans.word(found)
        return ""
    if openssl := _PASS.fullmatch(text):
        spans.spans.append((found.start + len(openssl[1]), found.end))
        return ""
    option, length = known.split(text)
    if length and length < len(text):
        value = _Word(found.start + length, found.end, text[length:])
        if option in known.users:
            _mask_user(value, spans)
        else:
            spans.word(value)
        return ""
    if option:
        return option
    field = _FIELD.match(text) if known.program in _HTTP else None
    if field and names_credential(field[1].encode("utf-8", "replace"), "header"):
        spans.spans.append((found.start + field.end(), found.end))
    return text if _OPTION.fullmatch(text) else ""


def _takes_secret(option: str, known: _Options) -> bool:
    if option in known.short:
        return not (known.asks and option == "-p")
    return len(option) > 2 and names_credential(option.encode("utf-8", "replace"), "anywhere")


def _mask_assigned(text: str, found: _Word, spans: _Found, *, quoted: bool, nested: bool) -> bool:
    # Whether something is assigned here to the name of a credential: ``NAME=value`` or
    # ``--name=value``. Where all of it is in quotes it may as well be a command, or a form.
    assigned = _ASSIGNMENT.match(found.text)
    if assigned is not None and assigned[2][:1] == "-" and not _named(assigned):
        assigned = _ASSIGNMENT.match(found.text, assigned.end())  # --set=NAME=value
    if assigned is None or not _named(assigned):
        return False
    start, end = found.start + assigned.end(), found.end
    if assigned[1]:
        whole = _ONE_STRING.fullmatch(found.text, assigned.start())
        if not quoted or "&" in found.text or whole is None:
            return False
        spans.spans.append((start, end - 1))
        return True
    value = found.text[assigned.end() :]
    following = text[end : end + 1]
    if value in ("", "$") and following and following in "(`":
        end = start  # what a command prints
    elif _ONE_STRING.fullmatch(value):
        spans.spans.append((start + 1, end - 1))
    else:
        spans.spans.append((start, end))
    if not nested and (following in _MORE_SIGNS or end == start):
        spans.stops.append(end)
    return True


def _named(assigned: re.Match[str]) -> bool:
    return names_credential(assigned[2].encode("utf-8", "replace"), "anywhere")


def _mask_user(found: _Word, spans: _Found) -> None:
    parts = _USER_SECRET.fullmatch(found.text)
    if parts is not None and parts[2] and not parts[2].startswith("//"):
        spans.spans.append((found.start + parts.start(2), found.start + parts.end(2)))


def _has_option(words: list[_Word], options: tuple[str, ...]) -> bool:
    for found in words:
        text = found.text
        for option in options:
            if text == option or text.startswith(f"{option}="):
                return True
            if len(option) == 2 and text[:1] == "-" and text[:2] != "--" and option[1] in text:
                return True
    return False


def _reads_secret(words: list[_Word], at: int) -> bool:
    names = {_name(found.text) for found in words[: at + 1]}
    return any(
        name in READERS and (not READERS[name] or _has_option(words, READERS[name]))
        for name in names
    )
