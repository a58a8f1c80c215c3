# SPDX-License-Identifier: Apache-2.0
"""A server that tells what passed, so that a capture of its clients has a truth of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Captured, joined, wait_until
from servers import PROGRAMS, Certificate, running

Talks = dict[int, tuple[bytes, bytes]]


class Witness:
    """A server that keeps what each connection said and heard."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.url = f"https://localhost:{self.port}/"
        self._folder = folder

    def talks(self, count: int) -> Talks:
        """By the client's port what was heard and said, once so many connections have ended."""

        def found() -> Talks:
            # In this order: a connection that ends meanwhile has been heard before it is counted.
            said = {p.stem: p.read_bytes() for p in self._folder.glob("*.said")}
            heard = {p.stem: p.read_bytes() for p in self._folder.glob("*.heard")}
            return {int(port): (heard[port], said[port]) for port in said if said[port]}

        wait_until(lambda: len(found()) >= count, f"{count} connections that ended")
        return found()


@contextmanager
def witness_server(certificate: Certificate, folder: Path, version: str) -> Iterator[Witness]:
    """``programs/witness_server.py``, which speaks one version of TLS."""
    place = folder / f"witnessed-{version}"
    place.mkdir(exist_ok=True)
    program = PROGRAMS / "witness_server.py"
    with running(sys.executable, program, *certificate, place, version) as process:
        yield Witness(int(process.stdout.readline()), place)


def assert_exact(run: Captured, talks: Talks) -> None:
    """Every connection: its bytes both ways, once, in order, with its addresses."""
    assert run.summary["lost"] == run.summary["unreadable"] == run.summary["truncated"] == 0
    assert run.summary["flows"] == len(talks), [each._replace(payload=b"") for each in run.shown()]
    for port, (heard, said) in talks.items():
        here = f"127.0.0.1:{port}"
        assert joined(run.shown(direction="write", source=here)) == heard
        assert joined(run.shown(direction="read", destination=here)) == said
    total = sum(len(heard) + len(said) for heard, said in talks.values())
    assert len(joined(run.shown())) == total
