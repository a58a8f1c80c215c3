# SPDX-License-Identifier: Apache-2.0
"""Says which files a program would load, without running anything.

Strategy: the rules of ld.so(8), applied to what the files say (``DT_NEEDED``, ``DT_RPATH``,
``DT_RUNPATH``) and to the cache that ldconfig(8) made. Only what this host's own root directory
shows is considered; a container's loader has other rules and another root.

The cache's layout is that of glibc 2.32 and later (sysdeps/generic/dl-cache.h): a header of 48
bytes, rows of 24 bytes, strings counted from the header. Before it may stand the older layout.

Invariant: the cache and the files are untrusted; bounds are checked, rows that lie are left out,
and the closure is bounded.
"""

from __future__ import annotations

import errno
import os
import platform
import shlex
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ecapture.binary.elf import ElfFile
from ecapture.errors import NotExecutable, PermissionMissing, TargetError, TargetNotFound

CACHE = Path("/etc/ld.so.cache")
"""Where ldconfig(8) keeps what it found."""

_OLD_MAGIC = b"ld.so-1.7.0\0"
_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_HEADER = struct.Struct("<12sI")
_HEADER = struct.Struct("<20sIIB3xI12x")
_ROW = struct.Struct("<iIIIQ")
_MAX_CACHE = 64 << 20
_MAX_NAME = 4096
_MAX_CLOSURE = 1024
_MAX_SCRIPTS = 5  # BINPRM_BUF_SIZE and the depth of interpreters: fs/exec.c
_MAX_SHEBANG = 256

# Flags of rows for this machine's 64-bit libraries: FLAG_ELF_LIBC6 and the machine's own.
_FLAGS = {"x86_64": 0x0303, "aarch64": 0x0A03}

_DEFAULTS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_MUSL_DEFAULTS = ("/lib", "/usr/local/lib", "/usr/lib")


def loader_cache(path: Path = CACHE) -> dict[str, tuple[str, ...]]:
    """Return the paths of every library in the loader's cache, by soname, the best first.

    An unreadable or damaged cache is an empty one, as it is for the loader.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CACHE)
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for name, place in _cache_rows(content):
        places = found.setdefault(name, [])
        if place not in places:
            places.append(place)
    return {name: tuple(places) for name, places in found.items()}


def _cache_rows(content: bytes) -> Iterator[tuple[str, str]]:
    start = 0
    if content.startswith(_OLD_MAGIC) and len(content) >= _OLD_HEADER.size:
        count = _OLD_HEADER.unpack_from(content)[1]
        start = (_OLD_HEADER.size + 12 * count + 7) & ~7
    if content[start : start + len(_MAGIC)] != _MAGIC or len(content) < start + _HEADER.size:
        return
    _, count, _, _, _ = _HEADER.unpack_from(content, start)
    rows = start + _HEADER.size
    count = min(count, (len(content) - rows) // _ROW.size)
    wanted = _FLAGS.get(platform.machine())
    block = content[rows : rows + count * _ROW.size]
    for flags, key, value, _, _ in _ROW.iter_unpack(block):
        name, place = _text(content, start + key), _text(content, start + value)
        if wanted in (None, flags) and name and place.startswith("/"):
            yield name, place


def _text(content: bytes, at: int) -> str:
    end = content.find(b"\0", at, at + _MAX_NAME)
    return os.fsdecode(content[at:end]) if end >= 0 else ""


def library_search_paths(cache: Mapping[str, tuple[str, ...]] | None = None) -> tuple[str, ...]:
    """Return the directories in which the loader finds libraries: those of its cache, then its own.

    ``cache`` is a loader cache that was read before.
    """
    cache = loader_cache() if cache is None else cache
    folders = dict.fromkeys(os.path.dirname(p) for places in cache.values() for p in places)  # noqa: PTH120
    folders.update(dict.fromkeys(_DEFAULTS))
    return tuple(folder for folder in folders if Path(folder).is_dir())


def resolve_script(path: str, search: str | None = None) -> str:
    """Return the program that runs when this file is started: itself, or its interpreter.

    Scripts may name a script; ``env`` is followed to the program it starts. ``search`` replaces
    ``$PATH`` for that.

    Raises:
        NotExecutable: it is neither, or scripts lead nowhere.
        TargetNotFound: it, or its interpreter, does not exist.
        PermissionMissing: it may not be read.
    """
    first = path
    for _ in range(_MAX_SCRIPTS):
        line = _first_line(path)
        if not line.startswith(b"#!"):
            return path
        words = os.fsdecode(line[2:]).strip().split(None, 1)
        if not words:
            raise NotExecutable(path=path, reason="a script without an interpreter")
        path = words[0]
        if Path(path).name == "env" and len(words) > 1:
            path = _started_by_env(path, words[1], search)
    raise NotExecutable(path=first, reason="scripts that start scripts without end")


def _first_line(path: str) -> bytes:
    try:
        if not Path(path).is_file():
            if Path(path).exists():
                raise NotExecutable(path=path, reason="not a regular file")
            raise FileNotFoundError(errno.ENOENT, "no such file")
        with Path(path).open("rb") as file:
            return file.read(_MAX_SHEBANG).split(b"\n", 1)[0]
    except PermissionError as cause:
        raise PermissionMissing(
            hint="run as root", needed_for=f"reading {path}", capability="its owner's rights"
        ) from cause
    except (OSError, ValueError) as cause:
        raise TargetNotFound(looked_for=path, looked_in="the file system") from cause


def _started_by_env(env: str, arguments: str, search: str | None) -> str:
    # The kernel hands over everything after the name as one argument; env -S splits it: env(1).
    words = [arguments.strip()]
    if words[0].startswith("-S"):
        try:
            words = shlex.split(words[0][2:])
        except ValueError:
            return env
    for word in words:
        if "=" not in word and not word.startswith("-"):
            return find_program(word, search)
    return env


def find_program(name: str, search: str | None = None) -> str:
    """Return the path of a program as a shell would find it. ``search`` replaces ``$PATH``.

    Raises:
        TargetNotFound: there is no such program.
    """
    if os.sep in name:
        return name
    search = os.environ.get("PATH", os.defpath) if search is None else search
    for folder in search.split(os.pathsep):
        path = Path(folder or ".") / name
        try:
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
        except (OSError, ValueError):
            continue
    raise TargetNotFound(looked_for=name, looked_in=search)


def closure(path: str, library_path: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the program and the libraries that its loader would map at its start, in that order.

    A script stands for its interpreter. ``library_path`` is ``LD_LIBRARY_PATH``. Libraries that
    are not found are left out, and so are those that the program opens later by name.

    Raises:
        NotExecutable: the file is not a program.
        TargetNotFound: it does not exist.
        PermissionMissing: it may not be read.
    """
    path = resolve_script(path)
    with ElfFile(path) as elf:
        musl = "ld-musl" in elf.interpreter
    chosen = tuple(library_path)
    cache = {} if musl else loader_cache()
    defaults = _MUSL_DEFAULTS if musl else library_search_paths(cache)
    loaded: dict[str, None] = {path: None}
    names: set[str] = set()
    waiting: deque[tuple[str, tuple[str, ...]]] = deque([(path, ())])
    while waiting and len(loaded) < _MAX_CLOSURE:
        current, inherited = waiting.popleft()
        try:
            with ElfFile(current) as elf:
                needed, machine = elf.needed, elf.machine
                rpath = () if elf.runpath else _expand(elf.rpath, current)
                runpath = _expand(elf.runpath, current)
        except (TargetError, PermissionMissing):
            if current == path:
                raise
            continue
        before = () if runpath else (*rpath, *inherited)
        for name in needed:
            if name in names:
                continue
            folders = (*before, *chosen, *runpath)
            place = _find(name, machine, folders, cache.get(name, ()), defaults)
            if place:
                names.add(name)
                if place not in loaded:
                    loaded[place] = None
                    waiting.append((place, (*rpath, *inherited)[:64]))
    return tuple(loaded)


def _find(
    name: str,
    machine: str,
    folders: Iterable[str],
    cached: Iterable[str],
    defaults: Iterable[str],
) -> str:
    # The first file of this name for this machine; the loader passes over others too.
    if os.sep in name:
        places: Iterable[str] = [name]
    else:
        places = [
            *(f"{folder}/{name}" for folder in folders),
            *cached,
            *(f"{folder}/{name}" for folder in defaults),
        ]
    for place in places:
        try:
            with ElfFile(place) as elf:
                if elf.machine == machine and elf.type == "shared":
                    return place
        except (TargetError, PermissionMissing):
            continue
    return ""


def _expand(folders: str, path: str) -> tuple[str, ...]:
    # "Dynamic string tokens" in ld.so(8). $LIB was fixed when the loader was built: Debian's is
    # the second of these, nearly everybody else's the first.
    origin = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - text in, text out
    machine = platform.machine()
    found: dict[str, None] = {}
    for folder in folders.split(":")[:64]:
        for lib in ("lib64", f"lib/{machine}-linux-gnu"):
            text = folder
            for token, value in (("ORIGIN", origin), ("LIB", lib), ("PLATFORM", machine)):
                text = text.replace(f"${{{token}}}", value).replace(f"${token}", value)
            if text:
                found[text] = None
    return tuple(found)
