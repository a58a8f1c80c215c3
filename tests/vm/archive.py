# SPDX-License-Identifier: Apache-2.0
"""Packages of other Debian suites, fetched without touching this host's package configuration.

apt is run with a directory of its own for sources, lists and caches, and with an empty list of
installed packages, so nothing is ever installed: packages are downloaded, checked by apt against
the archive's signature, and unpacked. The address of the archive is the one that this host's own
sources already name (``apt-get indextargets``); settings such as a proxy stay in force.

A host whose sources name no Debian archive cannot do this; ``CannotRun`` says so.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LISTS_FRESH_FOR = 24 * 3600.0  # seconds: a day
UPDATE_TAKES_AT_MOST = 300.0  # seconds
DOWNLOAD_TAKES_AT_MOST = 900.0  # seconds: 200 MB at a slow 2 Mbit/s


class CannotRun(Exception):  # noqa: N818 - it reads as what it says
    """This host cannot run guests; the text names what is missing and what to do."""


@dataclass(frozen=True)
class Mirrors:
    """Addresses of the two Debian archives; the security one may be unknown."""

    main: str
    security: str | None

    def serving(self, suite: str) -> str:
        """Return the address that has ``suite``.

        Raises:
            CannotRun: it is a security suite and this host names no security archive.

        """
        if not suite.endswith("-security"):
            return self.main
        if self.security is None:
            raise CannotRun(f"the apt sources of this host name no security archive for {suite}")
        return self.security


def index_targets(text: str) -> Iterator[dict[str, str]]:
    """Read what ``apt-get indextargets`` prints: stanzas of ``Name: value`` lines."""
    for stanza in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in stanza.splitlines() if ":" in line)
        if fields:
            yield {name.strip(): value.strip() for name, value in fields.items()}


def mirrors_in(text: str) -> Mirrors:
    """Find the Debian archives in what ``apt-get indextargets`` prints.

    The archives are known by the Origin and Label of their signed Release files, so sources of
    third parties that use Debian's suite names are not mistaken for Debian's.

    Raises:
        CannotRun: there is no Debian archive among them; the text says which there are.

    """
    by_label: dict[str, str] = {}
    origins: set[str] = set()
    for fields in index_targets(text):
        origin = fields.get("Origin", "")
        if origin:
            origins.add(origin)
        if origin == "Debian" and fields.get("Component") == "main":
            by_label.setdefault(fields.get("Label", ""), fields.get("Repo-URI", ""))
    main = by_label.get("Debian", "")
    if main:
        return Mirrors(main, by_label.get("Debian-Security") or None)
    if origins:
        raise CannotRun(
            "the apt sources of this host serve "
            + ", ".join(sorted(origins))
            + ", not Debian, so the kernels of Debian's suites cannot be fetched"
        )
    raise CannotRun("apt knows no archive yet; run apt-get update first")


def host_mirrors() -> Mirrors:
    """Return the Debian archives that this host's apt uses.

    Raises:
        CannotRun: there is no apt, or it uses no Debian archive.

    """
    if shutil.which("apt-get") is None:
        raise CannotRun("there is no apt-get here, so kernels cannot be fetched")
    done = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return mirrors_in(done.stdout)


class Suite:
    """One suite of the archive for one architecture, with apt state of its own."""

    def __init__(self, home: Path, mirrors: Mirrors, suite: str, arch: str) -> None:
        self.name = suite
        self._directory = home / "apt" / f"{suite}-{arch}"
        address = mirrors.serving(suite)
        signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        (self._directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (self._directory / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        sources = self._directory / "sources.list"
        sources.write_text(f"deb [arch={arch}{signed}] {address} {suite} main\n")
        settings = {
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "APT::Sandbox::User": "root",  # the cache directory is often private to root
            "Acquire::Check-Valid-Until": "false",  # suites past their support stay signed
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::Cache": str(self._directory / "cache"),
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": str(sources),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": str(self._directory / "lists"),
            "Dir::State::status": "/dev/null",
        }
        self._options = [f"-o{name}={value}" for name, value in settings.items()]

    def update(self) -> None:
        """Fetch the suite's list of packages unless it is younger than a day.

        Raises:
            CannotRun: the archive does not have the suite, or does not answer.

        """
        stamp = self._directory / "updated"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_FRESH_FOR:
            return
        try:
            # Without this apt counts an unreachable archive as a mere warning.
            self._apt(
                "apt-get", "-oAPT::Update::Error-Mode=any", "update", limit=UPDATE_TAKES_AT_MOST
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotRun(f"apt cannot read the suite {self.name}: {_reason(error)}") from error
        stamp.touch()

    def package_names(self, prefix: str) -> list[str]:
        """Return the names of the suite's packages that begin with ``prefix``."""
        return self._apt("apt-cache", "pkgnames", prefix, limit=60).split()

    def closure(self, *packages: str) -> list[str]:
        """Return the names of packages and of all that they need, recommendations left out."""
        listing = self._apt(
            "apt-get",
            "install",
            "--no-install-recommends",
            "--print-uris",
            "-y",
            *packages,
            limit=60,
        )
        rows = (line.split() for line in listing.splitlines() if line.startswith("'"))
        return [row[1].split("_")[0] for row in rows]

    def unpack(self, packages: Sequence[str], into: Path) -> None:
        """Download packages and unpack their files below ``into``.

        Raises:
            CannotRun: a package is not there or its checksum does not fit.

        """
        into.mkdir(parents=True, exist_ok=True)
        spool = into.with_name(into.name + ".debs")
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir()
        try:
            self._apt("apt-get", "download", *packages, limit=DOWNLOAD_TAKES_AT_MOST, cwd=spool)
            for package in sorted(spool.glob("*.deb")):
                subprocess.run(
                    ["dpkg-deb", "-x", package, into], check=True, capture_output=True, timeout=300
                )
        except (OSError, subprocess.SubprocessError) as error:
            names = " ".join(packages)
            raise CannotRun(f"cannot fetch {names} of {self.name}: {_reason(error)}") from error
        finally:
            shutil.rmtree(spool, ignore_errors=True)

    def _apt(self, program: str, *arguments: str, limit: float, cwd: Path | None = None) -> str:
        """Run one of apt's programs on this suite's state; return what it prints."""
        return subprocess.run(
            [program, "-q", *self._options, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=limit,
            cwd=cwd,
        ).stdout


def _reason(error: Exception) -> str:
    """Return the last words of a program that failed, or the error itself."""
    words = getattr(error, "stderr", None) or ""
    if isinstance(words, bytes):
        words = words.decode(errors="replace")
    return words.strip()[-300:] or str(error)
