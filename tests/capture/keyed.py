# SPDX-License-Identifier: Apache-2.0
"""Key logs, ours and other programs', and the programs that make them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from harness import Captured, Lines, wait_until
from servers import Certificate, Server, s_server

_SPEC = importlib.util.spec_from_file_location(
    "corpus_packages", Path(__file__).parent.parent / "corpus" / "packages.py"
)
packages = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = packages
_SPEC.loader.exec_module(packages)

PROGRAMS = Path(__file__).parent / "programs"
LINE = re.compile(r"[A-Z][A-Z0-9_]+ [0-9a-f]{64} (?:[0-9a-f]{64}|[0-9a-f]{96})")
TLS_1_3 = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "EXPORTER_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_TRAFFIC_SECRET_0",
]
"""The labels of one handshake, sorted."""


def read_keys(path: Path) -> list[str]:
    """The lines of a key log: each exactly in its format, none twice."""
    lines = path.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]  # OpenSSL's commands begin so
    for line in lines:
        assert LINE.fullmatch(line), line
    assert len(set(lines)) == len(lines), "a line stands there twice"
    return lines


def labels(lines: Sequence[str]) -> list[str]:
    """The labels alone, sorted."""
    return sorted(line.split()[0] for line in lines)


class Keyed(Captured):
    """``ecapture tls -m keylog`` running."""

    def __init__(self, folder: Path, *options: object, **how: object) -> None:
        self.keys = folder / "ours.log"
        super().__init__(
            folder, "-k", self.keys, *options, **({"mode": "keylog", "output": None} | how)
        )

    def lines(self) -> list[str]:
        """What was written; ends the capture."""
        if self.process.poll() is None:
            self.finish()
        return read_keys(self.keys)

    def wait_lines(self, count: int) -> None:
        """Returns when so many lines have been written."""
        wait_until(lambda: len(read_keys(self.keys)) >= count, f"{count} lines")


@contextmanager
def key_server(
    certificate: Certificate, keys: Path, *options: object
) -> Iterator[tuple[Server, Lines]]:
    """``openssl s_server`` that writes a key log of its own and answers lines in reverse."""
    with s_server(certificate, "-keylogfile", keys, "-rev", *options) as started:
        yield started


class Talker:
    """A program that is told what to do on its standard input."""

    def __init__(self, *words: object, **how: object) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **how,
        )
        self.said = Lines(self.process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()

    def tell(self, line: str) -> None:
        """Hands it one line."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


class Obeying(Talker):
    """A Python program that says "ready", and then answers each line with one line."""

    def __init__(self, program: str, *words: object, **environment: object) -> None:
        super().__init__(
            *(sys.executable, PROGRAMS / program, *words),
            env=os.environ | {name: str(value) for name, value in environment.items()},
        )
        self._answers = 0
        self._answer()

    def _answer(self) -> str:
        self._answers += 1
        ended = lambda: self.process.poll() is not None  # noqa: E731
        wait_until(lambda: len(self.said.so_far()) >= self._answers or ended(), "an answer")
        assert not ended(), self.said.all()
        return self.said.so_far()[self._answers - 1].strip()

    def do(self, line: str) -> str:
        """Hands it one command and returns the answer."""
        self.tell(line)
        return self._answer()


class LibraryClient(Obeying):
    """``programs/library_client.py`` on some libssl."""

    def __init__(self, library: Path) -> None:
        # some wheels have no path in their libraries: Python's own loading finds them
        super().__init__("library_client.py", library, LD_LIBRARY_PATH=library.parent)


def s_client(port: int, *options: object, **how: object) -> Talker:
    """``openssl s_client``, connected."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    talker = Talker(*words, **how)
    talker.said.wait_for(lambda line: line.startswith("---"), "---")
    return talker


def unpacked(key: str, folder: Path) -> Path:
    """A wheel of the corpus, unpacked: its libraries find each other there."""
    place = folder / key
    if not place.exists():
        with zipfile.ZipFile(packages._archive(packages.PACKAGES[key])) as wheel:
            wheel.extractall(place)
    return place
