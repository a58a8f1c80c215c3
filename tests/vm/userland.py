# SPDX-License-Identifier: Apache-2.0
"""The files of a guest whose architecture is not the host's: Debian, and the project built for it.

A guest of the host's architecture shares the host's own root filesystem; programs of another one
must come from somewhere. They come from the archive: packages are unpacked into a directory, never
configured, so nothing of the other architecture runs on the host, and the host's own package
configuration is not touched. The same directory is what the compiler links against (``cross``).

The release of Debian is the one that has the Python of this environment, because one minor version
of Python compiles and reads the same modules: what is imported there was compiled here.

Invariant: a directory is whole once it has the mark that says what it was made from, which is
written last; with another recipe it is made anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import archive
import cross
from archive import CannotRun
from store import CHECKOUT, locked, vm_home

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}

# What the tests start and what the project needs to run, without what maintainers' scripts do.
PACKAGES = (
    "bash",
    "busybox-static",
    "ca-certificates",
    "coreutils",
    "curl",
    "findutils",
    "gcc",
    "gnutls-bin",
    "grep",
    "iproute2",
    "libbpf1",
    "libc-bin",
    "libelf1",
    "libnss3-tools",
    "mount",
    "nginx-light",
    "openssl",
    "python3",
    "sed",
    "tshark",
    "util-linux",
    "wget",
    "zsh",
)
# bookworm's own way to merge /usr needs all of Perl; trixie is merged by its packages
MERGED = {"bookworm": ("usr-is-merged",)}
# Python's packages for the tests of a guest, besides what the project itself depends on.
TEST_PACKAGES = ("aiohttp", "h2", "httpx", "hyperframe", "pytest", "wsproto")
PLATFORMS = ("manylinux2014", "manylinux_2_28", "manylinux_2_34")
# The first release whose arm64 packages sign return addresses and mark where calls may land.
SIGNED = "trixie"
SIGNED_PACKAGES = ("bash", "libc-bin", "openssl")
MARK = ".made-from"
PIP_TAKES_AT_MOST = 600.0  # seconds


def fetch_root(arch: str) -> Path:
    """Return the root filesystem of a guest, with all but the project itself, made if need be.

    Raises:
        CannotRun: it cannot be made here; the text says why.

    """
    suite_name = _suite_name()
    directory = vm_home() / "roots" / f"{suite_name}-{arch}"
    wanted = [*PACKAGES, *MERGED.get(suite_name, ()), *cross.PACKAGES]
    requirements = _requirements()
    recipe = "\n".join([*wanted, *requirements])
    with locked(directory.name):
        if not _is_made_from(directory, recipe):
            shutil.rmtree(directory, ignore_errors=True)
            suite = archive.Suite(vm_home(), archive.host_mirrors(), suite_name, arch)
            suite.update()
            suite.unpack(suite.closure(*wanted), directory)
            _merge(directory)
            _complete(directory)
            _install(requirements, arch, directory)
            (directory / MARK).write_text(recipe)
    return directory


def fetch_beside(arch: str) -> Path:
    """Return programs of the release that signs return addresses, as a root of its own.

    Raises:
        CannotRun: they cannot be had here; the text says why.

    """
    directory = vm_home() / "roots" / f"beside-{arch}"
    recipe = "\n".join([SIGNED, *SIGNED_PACKAGES])
    with locked(directory.name):
        if not _is_made_from(directory, recipe):
            shutil.rmtree(directory, ignore_errors=True)
            suite = archive.Suite(vm_home(), archive.host_mirrors(), SIGNED, arch)
            suite.update()
            suite.unpack(suite.closure(*SIGNED_PACKAGES), directory)
            _merge(directory)
            (directory / MARK).write_text(recipe)
    return directory


def fetch_environment(arch: str) -> Path:
    """Return a virtual environment with this checkout built for ``arch``, brought up to date.

    It belongs at ``.venv`` of the checkout in the guest and works nowhere else.

    Raises:
        CannotRun: it cannot be built here; the text says why.

    """
    root = fetch_root(arch)
    directory = CHECKOUT / "build" / f"guest-{arch}"
    with locked(f"build-{arch}"):
        recipe = f"{root} {_newest_source()}"
        if not _is_made_from(directory, recipe):
            wheel = cross.build_wheel(arch, root, directory.with_name(f"wheel-{arch}"))
            shutil.rmtree(directory, ignore_errors=True)
            _lay_out(directory, wheel)
            (directory / MARK).write_text(recipe)
    return directory


def _suite_name() -> str:
    try:
        return SUITES[sys.version_info[:2]]
    except KeyError:
        known = " and ".join(f"{major}.{minor}" for major, minor in SUITES)
        raise CannotRun(
            f"guests of another architecture need a virtual environment of Python {known}, "
            f"as Debian has them; this is {sys.version_info[0]}.{sys.version_info[1]}"
        ) from None


def _is_made_from(directory: Path, recipe: str) -> bool:
    mark = directory / MARK
    return mark.exists() and mark.read_text() == recipe


def _merge(directory: Path) -> None:
    """Merge what packages of before the merge of /usr have beside it, as their scripts would."""
    for name in ("bin", "lib", "sbin"):
        beside = directory / name
        if beside.is_dir() and not beside.is_symlink():
            merged = directory / "usr" / name
            subprocess.run(["cp", "-a", f"{beside}/.", merged], check=True, timeout=60)
            shutil.rmtree(beside)
        if not beside.is_symlink():
            beside.symlink_to(f"usr/{name}")


def _complete(directory: Path) -> None:
    """Do what the packages' scripts would have done, as far as programs need it."""
    etc = directory / "etc"
    accounts = (("root", 0, "/root"), ("www-data", 33, "/var/www"), ("nobody", 65534, "/"))
    (etc / "passwd").write_text(
        "".join(f"{name}:x:{number}:{number}::{home}:/bin/sh\n" for name, number, home in accounts)
    )
    groups = (("root", 0), ("www-data", 33), ("nogroup", 65534))
    (etc / "group").write_text("".join(f"{name}:x:{number}:\n" for name, number in groups))
    (etc / "hosts").write_text("127.0.0.1 localhost guest\n::1 ip6-localhost\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    programs = directory / "usr" / "bin"
    for name, target in (("sh", "bash"), ("cc", "gcc")):
        if not (programs / name).exists():
            (programs / name).symlink_to(target)
    library = directory / "usr" / "lib" / f"python3.{sys.version_info[1]}"
    _compile(library, root=directory, seen_as=Path("/"))


def _compile(tree: Path, *, root: Path, seen_as: Path) -> None:
    """Compile modules here, where it is twenty times faster than in a guest.

    ``root`` is a directory that the guest knows as ``seen_as``. A few files of the standard library
    are wrong on purpose; what is not compiled here is compiled there.
    """
    words = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [*words, "-s", root, "-p", seen_as, tree],
        check=False,
        capture_output=True,
        timeout=PIP_TAKES_AT_MOST,
    )


def _requirements() -> list[str]:
    """Return what is to be installed beside the project, in the words of pyproject.toml."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [line for line in extras["dev"] if line.startswith(TEST_PACKAGES)]
    return sorted({*project["dependencies"], *extras["forward"], *named})


def _install(requirements: list[str], arch: str, root: Path) -> None:
    """Install wheels for ``arch`` where Debian's Python looks for what its administrator adds."""
    version = f"3.{sys.version_info[1]}"
    place = root / "usr" / "local" / "lib" / f"python{version}" / "dist-packages"
    machine = cross.MACHINES[arch]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(place), "--only-binary=:all:", "--no-compile"]
    command += ["--implementation", "cp", "--python-version", version]
    command += [f"--platform={name}_{machine}" for name in PLATFORMS]
    try:
        subprocess.run(
            [*command, *requirements],
            check=True,
            capture_output=True,
            text=True,
            timeout=PIP_TAKES_AT_MOST,
        )
    except subprocess.SubprocessError as error:
        words = (getattr(error, "stderr", None) or str(error)).strip()[-300:]
        raise CannotRun(f"pip cannot fetch packages for {machine}: {words}") from error
    _compile(place, root=root, seen_as=Path("/"))


def _newest_source() -> float:
    """Return when what the project is built from was last changed."""
    return max(path.stat().st_mtime for path in _sources())


def _sources() -> Iterator[Path]:
    yield from (CHECKOUT / name for name in ("meson.build", "pyproject.toml"))
    for tree in ("bpf", "src"):
        for directory, _, files in os.walk(CHECKOUT / tree):
            if not directory.endswith("__pycache__"):
                yield Path(directory)  # its time tells of files that went away
                yield from (Path(directory) / name for name in files)


def _lay_out(directory: Path, wheel: Path) -> None:
    """Make a virtual environment by hand: its Python runs in the guest only."""
    place = directory / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    place.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)
    home = CHECKOUT / ".venv"
    (directory / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = true\n"
        f"version = {'.'.join(map(str, sys.version_info[:3]))}\n"
    )
    (directory / "bin").mkdir()
    for name in ("python", "python3"):
        (directory / "bin" / name).symlink_to("/usr/bin/python3")
    program = directory / "bin" / "ecapture"
    program.write_text(
        f"#!{home}/bin/python\nimport sys\n\nfrom ecapture.__main__ import main\n\n"
        "sys.exit(main())\n"
    )
    program.chmod(0o755)
    _compile(place, root=directory, seen_as=home)


def main() -> int:
    """Build a wheel for another architecture; print it, and where its libraries are."""
    parser = argparse.ArgumentParser(description=(main.__doc__ or "").partition("\n")[0])
    parser.add_argument("arch", choices=["arm64"])
    arch = parser.parse_args().arch
    try:
        root = fetch_root(arch)
        wheel = cross.build_wheel(arch, root, CHECKOUT / "build" / f"wheel-{arch}")
    except CannotRun as why:
        sys.stderr.write(f"userland: {why}\n")
        return 1
    libraries = root / "usr" / "lib" / f"{cross.MACHINES[arch]}-linux-gnu"
    sys.stdout.write(f"{wheel}\n{libraries}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
