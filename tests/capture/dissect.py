# SPDX-License-Identifier: Apache-2.0
"""What Wireshark's own programs say of our files: nothing else is given to them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

# Wireshark's settings of whoever runs the tests have no say.
_HOME = tempfile.mkdtemp(prefix="wireshark-")
# Of the many ports that some protocol once registered, connections get one now and then by chance.
BY_CONTENT = ("-o", "tcp.try_heuristic_first:TRUE", "-o", "udp.try_heuristic_first:TRUE")
ENVIRONMENT = os.environ | {"HOME": _HOME, "XDG_CONFIG_HOME": _HOME}


def fields(path: Path, shown: str, *names: str, decode_as: str = "") -> list[list[str]]:
    """The fields of the packets that a display filter lets through, one list a packet.

    ``decode_as`` names the protocol of a port, such as "tcp.port==5432,pgsql".
    """
    words = ["tshark", "-n", *BY_CONTENT, "-r", str(path), "-Y", shown, "-T", "fields"]
    words += ["-d", decode_as] if decode_as else []
    for name in names:
        words += ["-e", name]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def values(path: Path, shown: str, name: str) -> list[str]:
    """All values of one field, in order; a packet may have several."""
    return [value for [told] in fields(path, shown, name) for value in told.split(",") if value]


def facts(path: Path) -> dict[str, str]:
    """What capinfos says of a whole file; it complains of none that it cannot read wholly."""
    done = subprocess.run(
        ["capinfos", "-M", path], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.replace("Running as user", "").count("\n") <= 1, done.stderr
    lines = (line.partition(":") for line in done.stdout.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _colon, value in lines}
