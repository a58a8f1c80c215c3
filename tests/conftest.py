# SPDX-License-Identifier: Apache-2.0
"""What every tree of tests shares: named requirements, a header, a crash guard.

``@pytest.mark.needs("root", "uprobe_multi")`` names what a test cannot do without: rights, and
features in the words of ``ecapture.kernel.feature``, so that the reason of a skip and ``ecapture
doctor`` cannot disagree. ``program:NAME`` is a program on PATH. Where one is missing the test is
skipped and the reason names it; ``ECAPTURE_REQUIRE=1`` turns every such skip into a failure.

Invariant: a run that died of a fatal signal leaves its traceback behind, and the next run shows it
and fails.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import platform
import shutil
import signal
from pathlib import Path

import pytest

_CRASHES = "ecapture-crashes"
_REQUIRED = os.environ.get("ECAPTURE_REQUIRE") == "1"
_crash_report = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(name, ...): rights, kernel features or programs that a test depends on"
    )
    # A shell that starts us in the background ignores interrupts, and programs inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# --- the header ---


def pytest_report_header() -> list[str]:
    package = importlib.util.find_spec("ecapture")
    where = package.origin if package is not None else "not installed"
    user = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    lines = [f"ecapture: {where}; {platform.release()} {platform.machine()}; {user}"]
    try:
        from ecapture.kernel.feature import features  # noqa: PLC0415 - needs the built extension

        lines.append("kernel: " + ", ".join(f"{f.name}={f.answer}" for f in features()))
    except ImportError:
        lines.append("kernel: not asked, the native extension is not built")
    return lines


# --- requirements ---


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            reason = _missing(name)
            if reason and _REQUIRED:
                pytest.fail(f"required, but {reason}", pytrace=False)
            if reason:
                pytest.skip(reason)


def _missing(name: str) -> str:
    """Why a requirement is not met; empty if it is."""
    if name == "root":
        return "" if os.geteuid() == 0 else "needs root"
    kind, _, program = name.partition(":")
    if kind == "program":
        return "" if shutil.which(program) else f"needs the program {program}"
    try:
        from ecapture.kernel.feature import feature  # noqa: PLC0415 - needs the built extension
    except ImportError as error:
        return f"needs {name}, and the native extension is not built ({error})"
    found = feature(name)
    return "" if found else f"needs {name}: {found.answer} ({found.reason})"


# --- the crash guard ---


def pytest_sessionstart(session: pytest.Session) -> None:
    cache = getattr(session.config, "cache", None)
    if cache is None:
        return  # -p no:cacheprovider, as in guests
    try:
        reports = cache.mkdir(_CRASHES)
        _fail_after_a_crash(reports)
        own = reports / f"{os.getpid()}.txt"
        # Empty unless a fatal signal comes. Standard error, pytest's choice, is soon forgotten.
        faulthandler.enable(own.open("w"))
    except PermissionError:
        return  # the cache is of a run as another user
    session.config.stash[_crash_report] = own


def _fail_after_a_crash(reports: Path) -> None:
    for report in sorted(reports.glob("*.txt")):
        if Path(f"/proc/{report.stem}").exists():
            continue  # a run beside this one
        text = report.read_text()
        report.unlink()
        if text:
            pytest.exit(f"an earlier run (process {report.stem}) crashed:\n{text}", returncode=3)


def pytest_unconfigure(config: pytest.Config) -> None:
    report = config.stash.get(_crash_report, None)
    if report is not None:
        report.unlink(missing_ok=True)
