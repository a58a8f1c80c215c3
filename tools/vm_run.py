#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs any command on another kernel, in the checkout, with the project's environment.

    .venv/bin/python tools/vm_run.py 5.10-cloud -- python -m pytest -q tests/kernel
    .venv/bin/python tools/vm_run.py 6.1-cloud --without btf -- ecapture doctor
    .venv/bin/python tools/vm_run.py --fetch 5.10-cloud 6.1-cloud

Exits with the command's own status; 125 when there was no guest to run it in.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "vm"))

import archive
import guest
from kernels import SUPPORTED, named

NO_GUEST = 125  # as env, timeout and nohup say that they themselves failed


def main() -> int:
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="kernels: " + ", ".join(kernel.name for kernel in SUPPORTED),
        usage="%(prog)s KERNEL [options] -- COMMAND...",
    )
    parser.add_argument("kernels", nargs="+", metavar="KERNEL", help="row of tests/vm/kernels.py")
    parser.add_argument("--fetch", action="store_true", help="only fetch what KERNEL... need")
    parser.add_argument("--without", action="append", default=[], choices=["btf"])
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for the command")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    options = parser.parse_args(words[:at])
    command = words[at + 1 :]
    try:
        chosen = [named(name) for name in options.kernels]
    except LookupError as error:
        parser.error(str(error))
    try:
        if options.fetch:
            for kernel in chosen:
                guest.fetch_qemu(guest.MACHINES[kernel.arch])
                print(kernel.name, guest.fetch_kernel(kernel).release)
            return 0
        if len(chosen) != 1 or not command:
            parser.error("one KERNEL, two hyphens and a COMMAND are needed")
        outcome = guest.run(
            chosen[0],
            command,
            without=options.without,
            timeout=options.timeout,
            memory=options.memory,
            echo=_pass_on,
        )
    except (archive.CannotRun, guest.GuestFailed) as error:
        print(f"vm_run: {error}", file=sys.stderr)
        return NO_GUEST
    timing = f"{outcome.boot_seconds:.1f} s to the command, {outcome.seconds:.1f} s in all"
    print(f"vm_run: status {outcome.status}, {timing}", file=sys.stderr)
    return outcome.status


def _pass_on(stream: str, data: bytes) -> None:
    out = getattr(sys, stream).buffer
    out.write(data)
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
