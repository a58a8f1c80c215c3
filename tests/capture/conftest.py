# SPDX-License-Identifier: Apache-2.0
"""Real probes on real programs: fixtures that every capture test starts from."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from asked import Asked
from harness import Captured, Watched
from peers import Peer, programs

if TYPE_CHECKING:
    from postgres_servers import PostgresServer


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A directory that every user can read, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="ecapture-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def tlspeer(open_folder: Path) -> Path:
    """The program that says one known thing, linked to the distribution's libssl."""
    return programs.build("tlspeer", open_folder)


@pytest.fixture
def peer(tlspeer: Path) -> Iterator[Callable[..., Peer]]:
    """``peer("pair", ...)`` starts tlspeer; what still runs at the end of the test is killed."""
    with ExitStack() as stack:
        yield lambda *words, **how: stack.enter_context(
            Peer(how.pop("program", tlspeer), *words, **how)
        )


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Callable[..., Captured]]:
    """``capture("--pid", "1", ...)`` starts ``ecapture tls`` and waits for its probes."""
    with ExitStack() as stack:
        yield lambda *options, **how: stack.enter_context(Captured(tmp_path, *options, **how))


@pytest.fixture
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Captured]]:
    """``watched("--pid", "1")`` captures commands of the module's ``SHELL`` as JSON lines."""
    with ExitStack() as stack:

        def start(*options: object, **how: Any) -> Captured:
            folder = tmp_path_factory.mktemp("captured")
            how = {"probe": getattr(request.module, "SHELL", "bash"), "mode": "jsonl"} | how
            return stack.enter_context(Captured(folder, *options, **how))

        yield start


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    """``watch(CaptureConfig(...), stages)`` captures in this process, through the library."""
    with ExitStack() as stack:
        yield lambda config, stages=(): stack.enter_context(Watched(config, stages))


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[str]:
    """A network namespace with a loopback interface and nothing else."""
    name = f"ecapture-{tmp_path.parent.name[-8:]}-{tmp_path.name[-8:]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The distribution's PostgreSQL, with TLS."""
    import postgres_servers  # noqa: PLC0415 - drivers that not every machine has
    from servers import make_certificate  # noqa: PLC0415

    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    programs = postgres_servers.distribution()
    with postgres_servers.running(programs, certificate=certificate) as found:
        with found.connect() as session:
            session.execute("CREATE ROLE locked LOGIN PASSWORD 'open sesame'")
            session.execute('CREATE ROLE "a b" LOGIN')
            session.execute('CREATE DATABASE "c d"')
        yield found


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Callable[..., Asked]]:
    """``asked("--pid", "1", ...)`` starts ``ecapture postgres -m jsonl`` and waits for it."""
    with ExitStack() as stack:
        yield lambda *options, **how: stack.enter_context(Asked(tmp_path, *options, **how))
