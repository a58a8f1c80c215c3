# SPDX-License-Identifier: Apache-2.0
"""Says which programs and modules a script may come to load, by reading it; nothing is run.

A shell script that ends in the program it wraps (browsers have one) names it by variables that it
set before. A Python script names modules, those import others, and some are shared objects with a
TLS library inside that takes longer to look into than the script may live. Both are read as text:
what is taken for a name and is none leads to no file, and what is named in another way is found
when it is loaded. Files, bytes and names are bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

_LONGEST: Final = 1 << 20  # bytes of one file that are read
_MOST_BYTES: Final = 32 << 20
_MOST_FILES: Final = 4000
_MOST_VARIABLES: Final = 256
_LONGEST_VALUE: Final = 4096
_SMALLEST: Final = 256 << 10  # no shared object below that has a TLS library in it
_INTERPRETER: Final = re.compile(rb"#![ \t]*([^\s]+)(?:[ \t]+([^\s]+))?")
_SHELLS: Final = frozenset(("sh", "bash", "dash", "ash", "ksh", "zsh"))
_PYTHON: Final = re.compile(r"python[0-9.]*")
_ASSIGNED: Final = re.compile(r"""^\s*(?:export\s+)?([A-Za-z_]\w*)=(["']?)([^"'`;&|()]*)\2""")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_PLACE: Final = re.compile(r"""["']?((?:/|\$)[\w./${}+-]*)["']?(?=["'\s;&|)]|$)""")
_IMPORTS: Final = re.compile(
    r"(?:^|;)[ \t]*(?:from[ \t]+([A-Za-z_]\w*)[\w.]*[ \t]+import\b|import[ \t]+([^#;\n]+))",
    re.MULTILINE,
)
_MODULE: Final = re.compile(r"[A-Za-z_]\w*")


def interpreter_of(script: str) -> str:
    """The program that a script's first line names, ``env`` passed over; empty if it is none."""
    match = _INTERPRETER.match(_content(script, 256))
    if match is None:
        return ""
    program, word = (os.fsdecode(part or b"") for part in match.groups())
    return word if Path(program).name == "env" else program


def is_python(program: str) -> bool:
    """Tell whether a program is an interpreter of Python, by its name."""
    return _PYTHON.fullmatch(Path(program).name) is not None


def programs_of_shell_script(script: str) -> tuple[str, ...]:
    """Absolute paths of programs that a shell script names, with variables that it sets itself."""
    if Path(interpreter_of(script)).name not in _SHELLS:
        return ()
    variables: dict[str, str] = {}
    found: dict[str, None] = {}
    for line in _content(script, _LONGEST).decode("utf-8", "replace").splitlines():
        if line.lstrip().startswith("#"):
            continue
        match = _ASSIGNED.match(line)
        if match is not None and len(variables) < _MOST_VARIABLES:
            variables[match[1]] = _expanded(match[3], variables)
        for place in _PLACE.finditer(line):
            word = _expanded(place[1], variables)
            with contextlib.suppress(OSError, ValueError):
                if word.startswith("/") and _is_program(word):
                    found[word] = None
    return tuple(found)


def modules_of_python(
    words: Sequence[str], programs: Iterable[str], variables: Mapping[str, str]
) -> tuple[str, ...]:
    """Shared objects that Python programs of a command line import, and what they import does.

    ``programs`` are the interpreters that run them; ``words`` those of the command line.
    """
    folders: dict[Path, None] = {}
    names: dict[str, None] = {}
    for word, before in zip(words, ("", *words), strict=False):
        if before == "-c":
            names |= dict.fromkeys(_imported(word))
        elif before == "-m":
            names |= dict.fromkeys(_MODULE.findall(word)[:1])
        elif word.endswith(".py") or is_python(interpreter_of(word)):
            folders[Path(word).parent] = None
            names |= dict.fromkeys(_imported(_content(word, _LONGEST).decode("utf-8", "replace")))
    if not names:
        return ()
    for program in programs:
        folders |= dict.fromkeys(_site_folders(program, variables))
    return tuple(_Walk([*folders, Path()]).run(names))


class _Walk:
    # From names of modules to the shared objects that they bring.

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._files = _MOST_FILES
        self._bytes = _MOST_BYTES

    def run(self, names: Iterable[str]) -> Iterator[str]:
        pending, known = list(names), set(names)
        while pending and self._files > 0:
            name = pending.pop()
            for path in self._files_of(name):
                if path.suffix != ".py":
                    yield str(path)
                    continue
                text = _content(str(path), min(_LONGEST, max(0, self._bytes)))
                self._bytes -= len(text)
                for other in _imported(text.decode("utf-8", "replace")):
                    if other not in known:
                        known.add(other)
                        pending.append(other)

    def _files_of(self, name: str) -> Iterator[Path]:
        # Texts and shared objects of a module, or of a package and all that is below it.
        for folder in self._folders:
            package = folder / name
            if (package / "__init__.py").is_file():
                yield from self._below(package)
                yield from self._below(folder / f"{name}.libs")  # where wheels put libraries
                return
            with contextlib.suppress(OSError):
                alone = [*folder.glob(f"{name}.*.so"), folder / f"{name}.so", folder / f"{name}.py"]
                found = [path for path in alone if self._counts(path)]
                yield from found
                if found:
                    return

    def _below(self, folder: Path) -> Iterator[Path]:
        for place, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if name not in ("tests", "test", "__pycache__")]
            for name in files:
                path = Path(place, name)
                if (path.suffix == ".py" or ".so" in name) and self._counts(path):
                    yield path
            if self._files <= 0:
                return

    def _counts(self, path: Path) -> bool:
        self._files -= 1
        try:
            found = path.stat()
        except OSError:
            return False
        large = path.suffix == ".py" or found.st_size >= _SMALLEST
        return self._files > 0 and stat.S_ISREG(found.st_mode) and large


def _site_folders(program: str, variables: Mapping[str, str]) -> Iterator[Path]:
    """Where an interpreter looks for what was installed (the site module of its library)."""
    for text in variables.get("PYTHONPATH", "").split(":"):
        if text:
            yield Path(text)
    prefixes = [Path(program).parent.parent, Path(os.path.realpath(program)).parent.parent]
    prefixes.append(Path(variables.get("HOME", "/root"), ".local"))
    for prefix in dict.fromkeys([*prefixes, Path("/usr/local"), Path("/usr")]):
        for pattern in ("lib*/python3*/site-packages", "lib*/python3*/dist-packages"):
            with contextlib.suppress(OSError):
                yield from sorted(prefix.glob(pattern))


def _imported(text: str) -> Iterator[str]:
    for match in _IMPORTS.finditer(text):
        if match[1]:
            yield match[1]
            continue
        for part in match[2].split(","):
            if found := _MODULE.match(part.strip()):
                yield found[0]


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    whole = _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)
    return whole[:_LONGEST_VALUE]


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and Path(path).is_file()


def _content(path: str, size: int) -> bytes:
    # The beginning of a regular file; nothing of what is none.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(fd, size) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
