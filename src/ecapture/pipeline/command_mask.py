# SPDX-License-Identifier: Apache-2.0
"""Secrets on command lines, replaced: ``--redact`` for what shells are told to do.

Beside what ``credentials`` finds in any text (assignments, ``--name=value``, header fields, URLs,
tokens known by their looks), the words of each simple command are read:

1. the word behind an option that is named like a credential (``--password X``);
2. values of options that have no telling name, by program: ``OPTIONS`` and ``USERS``;
3. words that a program takes as a secret by their place: ``PLACES``;
4. what is printed into a program that reads a secret (``echo X | sudo -S``): ``READERS``.

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
        *("mongodump", "docker", "podman", "buildah", "skopeo", "helm", "7z", "7za", "useradd"),
        *("usermod", "sqlcmd"),
    ),
    "-P": ("zip", "unzip", "sqlcmd", "bcp"),
    "-a": ("redis-cli",),
    "-w": ("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldappasswd", "ldapwhoami"),
    "-N": ("ssh-keygen",),
}
"""Options whose value is a secret, and the programs they are so of. Glued to it or not."""

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

PLACES: Final = {"htpasswd": ("-b", 2), "chpasswd": ("", 0)}
"""Programs of which a word is a secret: with this option, that many words come before it."""

READERS: Final = (
    ("sudo", "-S"),
    ("passwd", "--stdin"),
    ("docker", "--password-stdin"),
    ("podman", "--password-stdin"),
    ("helm", "--password-stdin"),
    ("chpasswd", ""),
    ("cryptsetup", ""),
    ("gpg", "--passphrase-fd"),
)
"""Programs that read a secret from a pipe, if this option is given."""

_PRINTERS: Final = ("echo", "printf", "print")
_WRAPPERS: Final = (
    *("sudo", "doas", "env", "nohup", "time", "command", "exec", "builtin", "nice", "noglob"),
    *("then", "do", "else", "!", "{", "if", "while"),
)
_WRAPPER_VALUES: Final = ("-u", "-g", "-U", "-C", "-h", "-n", "-R", "-D", "-T")
_WORD: Final = re.compile(
    r"""(?P<word>(?:'[^']*+'?|"(?:[^"\\]|\\.)*+"?|\\.|[^\s;&|<>()'"\\])++)"""
    r"""|(?P<end>\|\|?|&&?|[;\n()])""",
    re.DOTALL,
)
_OPTION: Final = re.compile(r"--?[A-Za-z][\w-]*")
_ASSIGNED: Final = re.compile(r"\w+=")
_PASS: Final = re.compile(r"(pass:)(.+)", re.DOTALL)  # openssl-passphrase-options(1)
_USER_SECRET: Final = re.compile(r"""(["']?[^:%]*+[:%])(.*?)(["']?)""", re.DOTALL)


class _Word(NamedTuple):
    start: int
    end: int
    text: str


_Spans = list[tuple[int, int, str]]


def mask_command(text: str) -> str:
    """The command with its secrets replaced; itself if it has none."""
    spans: _Spans = []
    before: list[_Word] = []
    for words in _commands(text):
        if words is None:
            before = []
            continue
        _mask_words(words, spans)
        if before and words and _reads_secret(words):
            spans += [_whole(printed) for printed in before[1:] if printed.text[:1] != "-"]
        before = words if words and words[0].text in _PRINTERS else []
    out, at = [], 0
    for start, end, new in sorted(spans):
        if start >= at:
            out += [text[at:start], new]
            at = end
    masked = "".join(out) + text[at:] if out else text
    raw = masked.encode("utf-8", "surrogatepass")
    found = mask_text(raw, word)
    return masked if found is raw or found == raw else found.decode("utf-8", "surrogatepass")


def _commands(text: str) -> Iterator[list[_Word] | None]:
    # The words of each simple command; None behind one that is not piped into the next.
    words: list[_Word] = []
    for match in _WORD.finditer(text):
        if match["word"] is not None:
            words.append(_Word(match.start(), match.end(), match["word"]))
        elif words:
            yield words
            words = []
            if match["end"] != "|":
                yield None
    if words:
        yield words


def _unquoted(text: str) -> str:
    return text.strip("\"'")


def _program(words: list[_Word]) -> int:
    # Which word names the program.
    skipped = False
    for index, found in enumerate(words):
        text = found.text
        if skipped:
            skipped = False
            continue
        skipped = index > 0 and text in _WRAPPER_VALUES
        name = _unquoted(text).rpartition("/")[2]
        if _ASSIGNED.match(text) or name in _WRAPPERS or (index and text[:1] == "-"):
            continue
        return index
    return len(words)


def _mask_words(words: list[_Word], spans: _Spans) -> None:
    at = _program(words)
    if at == len(words):
        return
    program = _unquoted(words[at].text).rpartition("/")[2]
    rest = words[at + 1 :]
    users = USERS.get(program, ())
    short = [option for option, programs in OPTIONS.items() if program in programs]
    asks = program.startswith(GLUED)
    previous = ""
    for found in rest:
        text = found.text
        if previous in users and previous:
            _mask_user(found, spans)
        elif previous and _takes_secret(previous, short, asks=asks) and text[:1] != "-":
            spans.append(_whole(found))
        elif openssl := _PASS.fullmatch(text):
            spans.append((found.start + len(openssl[1]), found.end, REPLACEMENT))
        else:
            for option in short:
                if text.startswith(option) and len(text) > len(option) and text[1] != "-":
                    spans.append((found.start + len(option), found.end, REPLACEMENT))
            for option in users:
                glued = f"{option}=" if option.startswith("--") else option
                if text.startswith(glued) and len(text) > len(glued) and text != option:
                    start = found.start + len(glued)
                    _mask_user(_Word(start, found.end, text[len(glued) :]), spans)
        previous = text if _OPTION.fullmatch(text) else ""
    _mask_places(program, rest, spans)


def _takes_secret(option: str, short: list[str], *, asks: bool) -> bool:
    if option in short:
        return not (asks and option == "-p")
    return len(option) > 2 and names_credential(option.encode(), "anywhere")


def _mask_user(found: _Word, spans: _Spans) -> None:
    parts = _USER_SECRET.fullmatch(found.text)
    if parts is not None and parts[2] and not parts[2].startswith("//"):
        start = found.start + parts.start(2)
        spans.append((start, found.start + parts.end(2), REPLACEMENT))


def _mask_places(program: str, rest: list[_Word], spans: _Spans) -> None:
    option, place = PLACES.get(program, ("", -1))
    if place < 0 or (option and not any(_has_letter(w.text, option) for w in rest)):
        return
    plain = [found for found in rest if found.text[:1] != "-"]
    spans += [_whole(found) for found in plain[place : place + 1]]


def _has_letter(text: str, option: str) -> bool:
    return text[:1] == "-" and text[:2] != "--" and option[1:] in text


def _reads_secret(words: list[_Word]) -> bool:
    texts = [_unquoted(found.text).rpartition("/")[2] for found in words]
    return any(
        program in texts[:2] and (not option or option in texts) for program, option in READERS
    )


def _whole(found: _Word) -> tuple[int, int, str]:
    return found.start, found.end, REPLACEMENT
