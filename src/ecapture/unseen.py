# SPDX-License-Identifier: Apache-2.0
"""Says why nothing is shown of a file, once.

Who waits for the commands of a shell or the statements of a server must hear at once that they will
not come.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator
from typing import Final

from ecapture.binary.library import NOT_TLS, Library
from ecapture.errors import ECaptureError, TargetNotFound

_log = logging.getLogger(__name__)
_SHELLS: Final = {
    "bash": "execute_command_internal",
    "zsh": "execode",
    "dash": "cmdloop",
    "busybox": "cmdloop",
    "fish": "",
}
"""Shells, and what carries out the commands that nobody types, where that is looked for."""

_WORTH_TELLING_S: Final = 0.1


class Unseen:
    """What was said already. Safe to call from several threads: at worst a line comes twice.

    ``kinds`` are those of files that are waited for; ``unattended`` says whether what nobody types
    into shells is wanted.
    """

    def __init__(self, kinds: Collection[str], *, unattended: bool = False) -> None:
        self._unattended = unattended
        self._kinds = frozenset(kinds) & NOT_TLS
        self._said: set[object] = set()

    def tell(self, file: tuple[int, int], name: str, library: Library) -> None:
        """Says that a file (device, inode) is not shown, if somebody might expect that it is."""
        if library.visible:
            self._tell_of_the_rest(file, name, library)
            return
        if library.kind in self._kinds and self._first(file):
            _log.warning("%s is not shown: %s", name, library.reason)

    def _tell_of_the_rest(self, file: tuple[int, int], name: str, library: Library) -> None:
        # What nobody types was asked for, and what carries that out was not found.
        if library.kind not in _SHELLS.keys() & self._kinds or not self._unattended:
            return
        if _SHELLS[library.kind] not in library.functions and self._first(file):
            string = " and the argument of -c" if "execstring" in library.functions else ""
            _log.warning(
                "%s: only what is typed%s is shown; what carries out other commands is not known",
                name,
                string,
            )

    @contextlib.contextmanager
    def refusals(self, key: tuple[object, ...], name: str) -> Iterator[None]:
        """Says why a file cannot be observed. What was refused once will be refused again."""
        try:
            yield
        except TargetNotFound as error:
            _log.debug("%s is gone already: %s", name, error)
        except ECaptureError as error:
            if self._first(key):
                _log.warning("%s cannot be observed: %s", name, error)

    def tell_late(self, key: tuple[object, ...], name: str, pid: int, mapped_ns: int) -> None:
        """Says for how long a process had used a file that was hooked just now.

        ``mapped_ns`` is when it began, by CLOCK_MONOTONIC.

        Only a program or library that nobody has seen takes time to be hooked; those that use it
        afterwards are seen from their first call.
        """
        late_s = (time.monotonic_ns() - mapped_ns) / 1e9
        if late_s >= _WORTH_TELLING_S and self._first(("late", key)):
            _log.info(
                "%s is new and had to be looked into first: what process %d did with it in the"
                " first %.1f s is missed; whoever starts with it from now on is seen at once",
                name,
                pid,
                late_s,
            )

    def _first(self, what: object) -> bool:
        if what in self._said:
            return False
        self._said.add(what)
        return True
