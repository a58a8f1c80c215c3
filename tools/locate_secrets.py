# SPDX-License-Identifier: Apache-2.0
"""Shows where ecapture would read TLS secrets in the given files, and how long finding out took.

python tools/locate_secrets.py FILE...
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ecapture.binary.elf import ElfFile
from ecapture.binary.secrets.locate import locate
from ecapture.binary.secrets.sites import NotLocated, SecretSites
from ecapture.errors import ECaptureError

ROW = "{:<34} {:>8}  {:<9} {:<27} {}"


def describe(sites: SecretSites) -> str:
    site = sites.log or sites.master
    if site is None:
        return "walks only"
    what = "log" if sites.log else "master"
    return f"{what} {site.address:#x} {site.how} {len(site.labels)}"


def main(paths: list[str]) -> int:
    print(ROW.format("file", "ms", "library", "function, how, labels", "client random"))
    failed = 0
    for path in paths:
        started = time.perf_counter()
        try:
            with ElfFile(path) as elf:
                sites = locate(elf)
        except ECaptureError as error:
            sites = NotLocated(str(error))
        spent = f"{1000 * (time.perf_counter() - started):.1f}"
        if isinstance(sites, NotLocated):
            failed += 1
            print(ROW.format(Path(path).name[:34], spent, "-", "-", sites.reason))
            continue
        random = sites.chains.get("client_random", "?")
        row = (Path(path).name[:34], spent, sites.library, describe(sites), random)
        print(ROW.format(*map(str, row)))
        others = [f"{name} {chain}" for name, chain in sorted(sites.chains.items())]
        print(f"{'':6}{'  '.join(others)}")
        for note in sites.notes:
            print(f"{'':6}note: {note}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
