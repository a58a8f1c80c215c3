# SPDX-License-Identifier: Apache-2.0
"""Runs a command on another kernel: this host's programs and files, another kernel below them.

A guest is QEMU without hardware help (nested hosts offer a KVM that is far slower than emulation,
or none), a kernel of Debian's archive, and this host's own root filesystem: shared read-only by
virtiofs, under a layer of memory, so the project's environment is there and cannot be harmed. A
boot takes about ten seconds; programs run 10 to 20 times slower than on the host. A guest of
another architecture has a root filesystem of its own and the project built for it (``userland``),
with the checkout at the same place.

What was fetched stays in ``$ECAPTURE_VM_HOME`` (else ``~/.cache/ecapture-vm``) and is used again
without the network. Nothing is installed on the host. QEMU 7.2 (Debian 12) crashes newer guests
at random, so where the installed one is older than 8.2 a newer one is unpacked beside it.

Two invariants: a guest ends with ``run``, whatever happens; and a guest is started again only if
it never reached the command, so that no failure of a test is retried away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import archive
import ramdisk
import userland
from archive import CannotRun
from kernels import IMAGE, Kernel, newest_release
from store import CHECKOUT, HOST_ARCH, locked, need, vm_home

# Debian packages that a host needs; what later becomes of them is up to apt_packages().
APT_PACKAGES = (
    "busybox-static",
    "kmod",
    "pkg-config",
    "qemu-system-arm",
    "qemu-system-x86",
    "util-linux",
    "virtiofsd",
)

INIT = Path(__file__).with_name("guest_init.sh")

OLDEST_QEMU = (8, 2)
BOOTS_WITHIN = 150.0  # seconds until the command starts: ten times what it takes on an idle host
STARTS = 3  # boots tried before giving up on reaching the command
OUTPUT_AT_MOST = 64 << 20  # bytes of either stream; a command that prints more is ended
POLLED_EVERY = 0.05  # seconds


class GuestFailed(Exception):  # noqa: N818 - it reads as what it says
    """The guest did not reach the command or did not end in time; the text says what it did."""


class Outcome(NamedTuple):
    """What a command in a guest did. Times are seconds on the host's clock."""

    status: int
    stdout: str
    stderr: str
    boot_seconds: float
    seconds: float


@dataclass(frozen=True)
class Machine:
    """How QEMU emulates an architecture."""

    program: str
    arguments: tuple[str, ...]
    parameters: str
    package: str


MACHINES = {
    "amd64": Machine(
        "qemu-system-x86_64",
        ("-machine", "q35", "-cpu", "max"),
        "console=ttyS0 tsc=reliable no_timer_check",
        "qemu-system-x86",
    ),
    "arm64": Machine(
        "qemu-system-aarch64",
        ("-machine", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"),
        "console=ttyAMA0",
        "qemu-system-arm",
    ),
}


@dataclass(frozen=True)
class Unpacked:
    """A kernel in the cache: its release (``uname -r``), image and modules."""

    release: str
    image: Path
    modules: Path


def apt_packages(codename: str, arch: str = HOST_ARCH) -> list[str]:
    """Return ``APT_PACKAGES`` as a host of that Debian release and architecture has them."""
    packages = set(APT_PACKAGES)
    if codename == "bookworm":
        packages.remove("virtiofsd")  # there it is a part of qemu-system-common
    if arch == "arm64":
        packages.remove("qemu-system-x86")
    return sorted(packages)


def host_codename() -> str:
    """Return the code name of the host's release, such as bookworm, or nothing."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/os-release").read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "VERSION_CODENAME":
                return value.strip('"')
    return ""


# --- fetching ------------------------------------------------------------------------------------


def fetch_kernel(kernel: Kernel) -> Unpacked:
    """Return the kernel of a row, from the cache or else from the archive.

    Raises:
        CannotRun: it cannot be had here; the text says why.

    """
    directory = vm_home() / "kernels" / kernel.name
    with locked(kernel.name):
        if not (directory / "release").exists():
            _download_kernel(kernel, directory)
    release = (directory / "release").read_text().strip()
    return Unpacked(release, directory / "vmlinuz", directory / "lib" / "modules" / release)


def _download_kernel(kernel: Kernel, directory: Path) -> None:
    """Fill ``directory``; the file ``release`` is written last and marks it as whole."""
    need("depmod", "kmod")
    suite, release = _find_release(kernel)
    shutil.rmtree(directory, ignore_errors=True)
    tree = directory / "tree"
    packages = [f"{IMAGE}{release}"]
    if f"linux-modules-{release}" in suite.package_names("linux-modules-"):
        packages = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    suite.unpack(packages, tree)
    images = [*tree.glob(f"boot/vmlinuz-{release}"), *tree.glob("usr/lib/modules/*/vmlinuz")]
    modules = [*tree.glob(f"lib/modules/{release}"), *tree.glob(f"usr/lib/modules/{release}")]
    if not images or not modules:
        raise CannotRun(f"no kernel image or modules in {' '.join(packages)}")
    shutil.copyfile(images[0], directory / "vmlinuz")
    (directory / "lib" / "modules").mkdir(parents=True)
    shutil.move(modules[0], directory / "lib" / "modules" / release)
    shutil.rmtree(tree)
    subprocess.run(["depmod", "-b", directory, release], check=True, timeout=120)
    (directory / "release").write_text(release + "\n")


def _find_release(kernel: Kernel) -> tuple[archive.Suite, str]:
    """Return the first of the row's suites that has a matching kernel, and the newest such."""
    mirrors = archive.host_mirrors()
    refusals: list[str] = []
    for name in kernel.suites:
        try:
            suite = archive.Suite(vm_home(), mirrors, name, kernel.arch)
            suite.update()
        except CannotRun as why:
            refusals.append(str(why))
            continue
        release = newest_release(kernel.build, suite.package_names(IMAGE))
        if release is not None:
            return suite, release
        refusals.append(f"{name} has no {IMAGE}{kernel.build}")
    raise CannotRun(f"kernel {kernel.name} is not to be had: " + "; ".join(refusals))


def fetch_qemu(machine: Machine) -> list[str]:
    """Return QEMU's program and the arguments that say where its own files are.

    Raises:
        CannotRun: there is none new enough, and none can be fetched.

    """
    beside = vm_home() / machine.package
    program = beside / "usr" / "bin" / machine.program
    installed = shutil.which(machine.program)
    with locked(machine.package):
        if not program.exists():
            if installed is None:
                raise CannotRun(f"{machine.program} is missing; install {machine.package}")
            if _qemu_version(installed) >= OLDEST_QEMU:
                return [installed]
            _download_qemu(machine, beside)
    firmware = (beside / "usr/share/qemu", Path("/usr/share/seabios"), Path("/usr/share/qemu"))
    return [str(program), *(word for path in firmware for word in ("-L", str(path)))]


def _qemu_version(program: str) -> tuple[int, ...]:
    """Return the version that a QEMU says it has."""
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    return qemu_version_in(done.stdout)


def qemu_version_in(text: str) -> tuple[int, ...]:
    """Return the numbers in the first line that ``qemu-system-* --version`` prints."""
    found = re.search(r"version (\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else (0,)


def _download_qemu(machine: Machine, beside: Path) -> None:
    """Unpack the backport of QEMU; the installed, older one has brought the libraries."""
    suite = archive.Suite(
        vm_home(), archive.host_mirrors(), f"{host_codename()}-backports", HOST_ARCH
    )
    suite.update()
    fresh = beside.with_name(f"{beside.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    suite.unpack([machine.package, "qemu-system-common", "qemu-system-data"], fresh)
    program = fresh / "usr" / "bin" / machine.program
    linked = subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=False, timeout=30
    )
    missing = [line.strip() for line in linked.stdout.splitlines() if "not found" in line]
    if missing:
        raise CannotRun(f"the backport of QEMU lacks libraries here: {', '.join(missing)}")
    shutil.rmtree(beside, ignore_errors=True)
    fresh.rename(beside)


# --- running -------------------------------------------------------------------------------------


def run(
    kernel: Kernel,
    command: Sequence[str],
    *,
    without: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = 900.0,
    memory: int = 2048,
    echo: Callable[[str, bytes], None] | None = None,
    abandoned: threading.Event | None = None,
) -> Outcome:
    """Boot ``kernel``, run ``command`` as root in the checkout, and return what it did.

    ``without`` takes features away: ``btf`` hides the kernel's type information. ``environment``
    is added to the guest's own (the project's virtual environment comes first on PATH; PYTHONPATH
    and ECAPTURE_* of the host are passed on). ``timeout`` bounds the command, in seconds, boot
    not included; ``memory`` is in MiB. ``echo`` is given ("stdout" or "stderr", bytes) as they
    come. ``abandoned`` ends the guest once another thread sets it.

    Raises:
        CannotRun: this host cannot run such a guest.
        GuestFailed: no boot reached the command, or the command did not end in time, or the guest
            was abandoned.

    """
    if os.geteuid() != 0:
        raise CannotRun("sharing the root filesystem with a guest needs root")
    machine = MACHINES[kernel.arch]
    unpacked = fetch_kernel(kernel)
    qemu = fetch_qemu(machine)
    taken = {"ECAPTURE_GUEST_WITHOUT": " ".join(without)}
    script = _script(unpacked.release, command, {**taken, **(environment or {})})
    if kernel.arch != HOST_ARCH:
        # Nothing of the other architecture ran on the host, so the loader has no list of libraries.
        script = f"/sbin/ldconfig\nexport ECAPTURE_GUEST_BESIDE=/beside\n{script}"
    disk = _disk(kernel, unpacked, script, {"WITHOUT": " ".join(without), **_shared(kernel.arch)})
    reason = ""
    given_up = abandoned or threading.Event()
    for _ in range(STARTS):
        if given_up.is_set():
            raise GuestFailed(f"{kernel.name} was abandoned")
        with tempfile.TemporaryDirectory(prefix="ecapture-vm-") as work:
            boot = _Boot(Path(work), timeout=timeout, echo=echo, abandoned=given_up)
            outcome = boot.go(qemu, machine, unpacked, disk, memory)
            if outcome is not None:
                return outcome
            reason = boot.last_words()
    raise GuestFailed(f"{kernel.name} did not reach the command in {STARTS} boots:\n{reason}")


def _script(release: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the shell script that is the command, with all of its environment."""
    venv = CHECKOUT / ".venv"
    own = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": f"{venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "VIRTUAL_ENV": str(venv),
        "ECAPTURE_IN_GUEST": "1",
        "ECAPTURE_GUEST_RELEASE": release,
    }
    passed = {
        name: value
        for name, value in os.environ.items()
        if name == "PYTHONPATH" or name.startswith("ECAPTURE_")
    }
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in {**passed, **own, **environment}.items()
    ]
    return "\n".join(
        [*lines, f"cd {shlex.quote(str(CHECKOUT))} || exit 126", f"exec {shlex.join(command)}\n"]
    )


def _shared(arch: str) -> dict[str, str]:
    """Say which of the host's directories become what in a guest, in the words of its script."""
    # A checkout below /tmp would vanish under a filesystem mounted there.
    shared = {"KEEP_TMP": "yes" if CHECKOUT.is_relative_to("/tmp") else ""}
    if arch == HOST_ARCH:
        return {**shared, "LOWER": "", "CHECKOUT": ""}
    return {
        **shared,
        "LOWER": str(userland.fetch_root(arch)),
        "CHECKOUT": str(CHECKOUT),
        "ENVIRONMENT": str(userland.fetch_environment(arch)),
        "BESIDE": str(userland.fetch_beside(arch)),
    }


def _disk(kernel: Kernel, unpacked: Unpacked, script: str, settings: Mapping[str, str]) -> bytes:
    """Return the initial RAM disk for one boot."""
    if kernel.arch == HOST_ARCH:
        busybox = Path(need("busybox", "busybox-static")).read_bytes()
    else:
        busybox = (userland.fetch_root(kernel.arch) / "usr" / "bin" / "busybox").read_bytes()
    files, missing = ramdisk.load_order(
        (unpacked.modules / "modules.dep").read_text(),
        (unpacked.modules / "modules.builtin").read_text(),
        [*ramdisk.MODULES, *kernel.extras],
    )
    if missing:
        raise CannotRun(f"kernel {unpacked.release} has no module {', '.join(missing)}")
    directory, program, plain = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    contents = dict.fromkeys(("bin", "dev", "modules", "proc", "sys"), (directory, b""))
    contents["bin/busybox"] = (program, busybox)
    contents["bin/sh"] = (stat.S_IFLNK | 0o777, b"busybox")
    contents["init"] = (program, INIT.read_bytes())
    contents["command"] = (plain, script.encode())
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    contents["settings"] = (plain, text.encode())
    names = [f"{ramdisk.module_name(file)}.ko" for file in files]
    for name, file in zip(names, files, strict=True):
        contents[f"modules/{name}"] = (plain, ramdisk.module_image(unpacked.modules / file))
    contents["modules/order"] = (plain, "".join(f"{name}\n" for name in names).encode())
    return ramdisk.cpio(contents)


class _Boot:
    """One start of QEMU, with its files in a directory that goes away with it."""

    def __init__(
        self,
        work: Path,
        *,
        timeout: float,
        echo: Callable[[str, bytes], None] | None,
        abandoned: threading.Event,
    ) -> None:
        self._work = work
        self._timeout = timeout
        self._echo = echo
        self._abandoned = abandoned
        self._echoed = {"stdout": 0, "stderr": 0}
        self._reached = 0.0  # when the command began, on the monotonic clock

    def go(
        self, qemu: list[str], machine: Machine, unpacked: Unpacked, disk: bytes, memory: int
    ) -> Outcome | None:
        """Return what the command did, or None if the guest never reached it."""
        (self._work / "disk").write_bytes(disk)
        began = time.monotonic()
        with contextlib.ExitStack() as running:
            running.enter_context(self._started("virtiofsd", self._virtiofsd()))
            self._wait_for_socket()
            arguments = self._arguments(machine, unpacked, memory)
            vm = running.enter_context(self._started("qemu", [*qemu, *arguments]))
            boot = self._wait_for("started", vm, began + BOOTS_WITHIN)
            if boot is None:
                return None
            self._reached = time.monotonic()
            ended = self._wait_for("ended", vm, self._reached + self._timeout)
        self._pass_on()
        if ended is None:
            raise GuestFailed(f"{self._why_unended()}:\n{self.last_words()}")
        return Outcome(
            status=int(ended.split()[1]),
            stdout=self._text("stdout"),
            stderr=self._text("stderr"),
            boot_seconds=self._reached - began,
            seconds=time.monotonic() - began,
        )

    def _why_unended(self) -> str:
        if max(self._echoed.values()) > OUTPUT_AT_MOST:
            return f"the command printed more than {OUTPUT_AT_MOST >> 20} MiB"
        if self._abandoned.is_set():
            return "the guest was abandoned"
        if time.monotonic() - self._reached > self._timeout:
            return f"the command did not end within {self._timeout:.0f} s"
        return "the guest ended before the command did"

    def last_words(self) -> str:
        """Return the ends of what the guest and the programs around it said."""
        kept = []
        for name in ("stdout", "stderr", "console", "qemu.log", "virtiofsd.log"):
            words = self._text(name).strip()
            if words:
                kept.append(f"--- {name}\n{words[-2000:]}")
        return "\n".join(kept)

    def _text(self, name: str) -> str:
        try:
            with (self._work / name).open("rb") as file:
                return file.read(OUTPUT_AT_MOST).decode(errors="replace")
        except OSError:
            return ""

    @contextlib.contextmanager
    def _started(self, name: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program until the block ends, or until this process dies, whichever is first."""
        setpriv = [need("setpriv", "util-linux"), "--pdeathsig", "KILL"]
        with (self._work / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*setpriv, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _virtiofsd(self) -> list[str]:
        """Return the command that shares ``/``: Debian 12's C program or the later Rust one."""
        socket = f"--socket-path={self._work}/root.sock"
        later = Path("/usr/libexec/virtiofsd")
        if later.exists():
            # Announced mounts become automounts in the guest, which overlay refuses below it.
            options = "--readonly --cache=always --sandbox=chroot --no-announce-submounts"
            return [str(later), socket, "--shared-dir=/", *options.split(), "--log-level=error"]
        older = Path("/usr/lib/qemu/virtiofsd")  # asked second: Debian 13 has a link of this name
        if older.exists():
            options = "source=/,cache=always,sandbox=chroot,log_level=err"
            return [str(older), socket, "-o", options]
        raise CannotRun("virtiofsd is missing; install virtiofsd (Debian 12: qemu-system-common)")

    def _wait_for_socket(self) -> None:
        deadline = time.monotonic() + 20
        while not (self._work / "root.sock").exists():
            if time.monotonic() > deadline:
                raise GuestFailed(f"virtiofsd does not listen:\n{self.last_words()}")
            time.sleep(POLLED_EVERY)

    def _arguments(self, machine: Machine, unpacked: Unpacked, memory: int) -> list[str]:
        """Return QEMU's arguments: one disk in memory, one shared filesystem, three ports."""
        work = self._work
        # Closing a probe waits for all processors: expedited, as they are slow to come by here.
        parameters = "panic=-1 loglevel=5 mitigations=off rcupdate.rcu_expedited=1"
        arguments = [*machine.arguments, "-machine", "memory-backend=memory"]
        arguments += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
        arguments += ["-m", f"{memory}M", "-smp", str(min(os.cpu_count() or 1, 2))]
        arguments += ["-accel", "tcg,thread=multi", "-nodefaults", "-no-user-config"]
        arguments += ["-display", "none", "-no-reboot"]
        arguments += ["-kernel", str(unpacked.image), "-initrd", str(work / "disk")]
        arguments += ["-append", f"{parameters} {machine.parameters}"]
        arguments += ["-chardev", f"file,id=console,path={work}/console"]
        arguments += ["-serial", "chardev:console"]
        arguments += ["-chardev", f"socket,id=root,path={work}/root.sock"]
        arguments += ["-device", "vhost-user-fs-pci,chardev=root,tag=hostroot"]
        arguments += ["-device", "virtio-serial-pci"]
        for number, name in enumerate(("stdout", "stderr", "progress"), start=1):
            arguments += ["-chardev", f"file,id={name},path={work}/{name}"]
            arguments += ["-device", f"virtserialport,chardev={name},nr={number},name={name}"]
        return arguments

    def _wait_for(self, word: str, vm: subprocess.Popen[bytes], deadline: float) -> str | None:
        """Wait for a line of the guest's progress; None once it cannot come any more."""
        while True:
            over = vm.poll() is not None or time.monotonic() > deadline or self._abandoned.is_set()
            for line in self._text("progress").splitlines(keepends=True):
                if line.startswith(word) and line.endswith("\n"):
                    return line
            self._pass_on()
            if over or max(self._echoed.values()) > OUTPUT_AT_MOST:
                return None
            time.sleep(POLLED_EVERY)

    def _pass_on(self) -> None:
        """Give new output to ``echo``, and note how much there was."""
        for name, before in self._echoed.items():
            path = self._work / name
            size = path.stat().st_size if path.exists() else 0
            if size > before:
                self._echoed[name] = size
                if self._echo is not None:
                    with path.open("rb") as file:
                        file.seek(before)
                        self._echo(name, file.read(size - before))


def main() -> int:
    """Print what the set-up of a host needs to know."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--apt-packages", action="store_true", help="packages that a host needs")
    if parser.parse_args().apt_packages:
        sys.stdout.write(" ".join(apt_packages(host_codename())) + "\n")
        return 0
    parser.print_help()
    return 2


if __name__ == "__main__":
    sys.exit(main())
