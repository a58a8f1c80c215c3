# SPDX-License-Identifier: Apache-2.0
"""Runs tests inside a guest, as one test outside of it.

Guests run two at a time: an emulated one whose tests come one after the other keeps little more
than one processor busy. What they are for is asked of pytest, so that only chosen tests boot one.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import archive
import guest
import pytest
from kernels import Kernel

AT_ONCE = 2
TIMEOUT = 2400.0  # seconds: a suite of one minute on the host, twenty times slower, beside another


@dataclass(frozen=True)
class Errand:
    """What one guest is booted for: tests, in pytest's words.

    ``without`` names features to take away, as for ``guest.run``; ``prepare`` is called on the
    host before the boot, and returns what is added to the environment of the tests.
    """

    kernel: Kernel
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()
    prepare: Callable[[], Mapping[str, str]] = dict

    def __str__(self) -> str:
        return "-without-".join((self.kernel.name, *self.without))


@contextmanager
def run_for(items: list[pytest.Item]) -> Iterator[Mapping[Errand, Future[guest.Outcome]]]:
    """Run the errands of collected tests, in their order; what still runs at the end is ended."""
    parameters = (getattr(item, "callspec", None) for item in items)
    wanted = [spec.params["errand"] for spec in parameters if spec and "errand" in spec.params]
    over = threading.Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            yield {errand: pool.submit(_ran, errand, over) for errand in wanted}
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _ran(errand: Errand, abandoned: threading.Event) -> guest.Outcome:
    words = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *errand.tests]
    # The shell stays, so that its file is hooked before a capture says that it is ready: what is
    # seen for the first time is looked into for a second or more in emulation, unseen meanwhile.
    command = ["bash", "-c", f"{shlex.join(words)}; exit $?"]
    # What an old kernel lacks is what these tests are for: there, no skip is a failure.
    settings = {"ECAPTURE_REQUIRE": "0", **errand.prepare()}
    return guest.run(
        errand.kernel,
        command,
        without=errand.without,
        timeout=TIMEOUT,
        environment=settings,
        abandoned=abandoned,
    )


def assert_passed(
    errand: Errand, outcome: Future[guest.Outcome], capsys: pytest.CaptureFixture
) -> None:
    """Wait for an errand and fail with what its tests said unless they passed; print its time.

    A host that cannot run guests skips.
    """
    try:
        done = outcome.result()
    except archive.CannotRun as why:
        if os.environ.get("ECAPTURE_VM_REQUIRED") == "1":
            raise
        pytest.skip(f"cannot run here: {why}")
    summary = (done.stdout.strip().splitlines() or ["no output"])[-1]
    with capsys.disabled():
        print(
            f"\n{errand}: {summary} "
            f"({done.boot_seconds:.0f} s to boot, {done.seconds:.0f} s in all)"
        )
    assert done.status == 0, f"{done.stdout[-20000:]}\n{done.stderr[-5000:]}"
