# SPDX-License-Identifier: Apache-2.0
"""Says which files a command line may come to load, before it runs.

What is looked into ahead of the start is probed at the start, however short a program lives. Every
word is taken for a program, because ``env``, ``sh -c`` and their like run what later words name;
what is no program is passed over. Scripts are read for what they run or import (``scripts``). A
word that is a directory with programs of its own may become the root of what follows (``chroot``,
``unshare --root``, a container's runtime): such a tree is looked into by a process of its own that
has it for its root, since links in it lead nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ecapture.binary import loader, scripts
from ecapture.errors import ECaptureError

_LOOKED_AT_WORDS: Final = 256
_ROOTS: Final = 4
_PATIENCE_S: Final = 5.0
_PROGRAMS: Final = ("usr/bin", "bin")

_log = logging.getLogger(__name__)


def files_of_command(command: Sequence[str]) -> tuple[str, ...]:
    """The programs that a command line names (for scripts, their interpreters) and what they load.

    ``LD_LIBRARY_PATH``, ``PATH`` and ``PYTHONPATH`` hold as ``env`` sets them. Files in the root of
    another are named as they are seen from here.
    """
    words = list(command)
    for word in command[1:]:
        with contextlib.suppress(ValueError):  # a quotation without end
            words += shlex.split(word, comments=True)
    words = words[:_LOOKED_AT_WORDS]
    variables = dict(os.environ)
    for word in words:
        name, assigned, value = word.partition("=")
        if assigned and name in ("LD_LIBRARY_PATH", "PATH", "PYTHONPATH"):
            variables[name] = value
    found = dict.fromkeys(_files_of(words, variables))
    for root in _roots(words):
        found |= dict.fromkeys(_files_within(root, words, variables))
    return tuple(found)


def _files_of(words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    folders = [folder for folder in variables.get("LD_LIBRARY_PATH", "").split(":") if folder]
    found: dict[str, None] = {}
    pythons: list[str] = []
    sources: list[str] = []
    for word in dict.fromkeys(words):
        try:
            place = loader.find_program(word, variables.get("PATH"))
            if not os.access(place, os.X_OK) or Path(place).is_dir():
                continue
            found |= dict.fromkeys(loader.closure(place, folders))
            for program in scripts.programs_of_shell_script(place):
                found |= dict.fromkeys(loader.closure(program, folders))
            interpreter = scripts.interpreter_of(place) or place
            if scripts.is_python(interpreter):
                pythons.append(interpreter)
                sources.append(place)
        except (ECaptureError, OSError, ValueError) as error:
            _log.debug("cannot look into %s ahead of the start: %s", word, error)
    if pythons:
        modules = scripts.modules_of_python([*words, *sources], pythons, variables)
        found |= dict.fromkeys(modules)
    return list(found)


def _roots(words: Sequence[str]) -> list[str]:
    # "--root=DIR" and "-RDIR" name one, too.
    found: dict[str, None] = {}
    for word in words:
        for text in (word, word.partition("=")[2], word[2:] if word[:1] == "-" else ""):
            with contextlib.suppress(OSError, ValueError):
                folder = Path(text).resolve() if text else Path("/")
                if folder != Path("/") and any((folder / name).is_dir() for name in _PROGRAMS):
                    found[str(folder)] = None
    return list(found)[:_ROOTS]


def _files_within(root: str, words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    command = [sys.executable, "-P", "-m", "ecapture.binary.command_line", root, *words]
    try:
        done = subprocess.run(
            command, env=dict(variables), capture_output=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        _log.debug("cannot look into %s ahead of the start: %s", root, error)
        return []
    return [root + os.fsdecode(place) for place in done.stdout.split(b"\0") if place]


def _main(root: str, *words: str) -> None:
    # In a process of its own: tells the files of a tree, its links followed within it.
    os.chroot(root)
    os.chdir("/")
    places = [os.path.realpath(place) for place in _files_of(words, os.environ)]
    sys.stdout.buffer.write(b"\0".join(map(os.fsencode, dict.fromkeys(places))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
