# SPDX-License-Identifier: Apache-2.0
"""Builds the project's wheel for another architecture, with this host's compilers.

The kernel programs are compiled for every architecture anyway. The extensions are compiled by the
cross compiler against headers and libraries of a Debian root filesystem of that architecture
(``userland``). What Python says of itself there (the suffix of extensions, the wheel's platform)
stands in a module of its standard library, which ``_PYTHON_SYSCONFIGDATA_NAME`` lets this Python
read in place of its own: the way that CPython's own build system uses to cross-compile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from archive import CannotRun
from store import CHECKOUT, need

# Debian packages that the root filesystem must have to be linked against.
PACKAGES = (
    "libbpf-dev",
    "libc6-dev",
    "libelf-dev",
    "libpython3-dev",
    "linux-libc-dev",
    "zlib1g-dev",
)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's words and everybody else's
TAKES_AT_MOST = 1200.0  # seconds

CROSS_FILE = """\
[constants]
root = '{root}'
[binaries]
c = ['{compiler}', '--sysroot=' + root]
strip = '{machine}-linux-gnu-strip'
pkg-config = 'pkg-config'
[properties]
sys_root = root
pkg_config_libdir = root / 'usr/lib/{machine}-linux-gnu/pkgconfig:' + root / 'usr/share/pkgconfig'
[host_machine]
system = 'linux'
cpu_family = '{machine}'
cpu = '{machine}'
endian = 'little'
"""


def build_wheel(arch: str, root: Path, into: Path) -> Path:
    """Build the checkout's wheel for ``arch`` below ``into``; return its path.

    What was compiled before and has not changed is not compiled again.

    Raises:
        CannotRun: a compiler is missing, or the build fails; the text has its last words.

    """
    machine = MACHINES[arch]
    need("pkg-config", "pkg-config")
    compiler = need(f"{machine}-linux-gnu-gcc", f"gcc-{machine}-linux-gnu")
    name = f"_sysconfigdata__{machine}-linux-gnu"
    told = into / "told"  # a directory with nothing else, for it comes first on the path of Python
    told.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "usr" / "lib" / f"python3.{sys.version_info[1]}" / f"{name}.py", told)
    settings = into / "cross.ini"
    settings.write_text(CROSS_FILE.format(root=root, compiler=compiler, machine=machine))
    for old in into.glob("*.whl"):
        old.unlink()
    # meson and cython are those of this environment, whatever it was started by.
    own = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{own}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(told),
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        "_PYTHON_SYSCONFIGDATA_NAME": name,
    }
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-build-isolation", "--no-deps", "--wheel-dir", str(into)]
    command += [f"--config-settings=build-dir={into / 'meson'}"]
    command += [f"--config-settings=setup-args=--cross-file={settings}", "."]
    try:
        subprocess.run(
            command,
            env=environment,
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
            text=True,
            timeout=TAKES_AT_MOST,
        )
    except subprocess.SubprocessError as error:
        words = (getattr(error, "stderr", None) or str(error)).strip()[-1500:]
        raise CannotRun(f"cannot build for {machine}: {words}") from error
    (wheel,) = into.glob("*.whl")
    return wheel
