# SPDX-License-Identifier: Apache-2.0
"""Profiles of Firefox and Thunderbird that trust an authority of the test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Profile(NamedTuple):
    """A profile's folder, and a certificate for localhost that it trusts, with its key."""

    folder: Path
    certificate: Path
    key: Path


def make_profile(folder: Path, preferences: str = "") -> Profile:
    """A profile that trusts a new authority, and a certificate and key by it."""
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    (folder / "leaf.cnf").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    (folder / "profile").mkdir()
    (folder / "profile" / "user.js").write_text(preferences)
    database = ("-d", "sql:profile")
    for words in (
        (
            *("openssl", "req", "-x509", *new, "-days", "2", "-subj", "/CN=authority"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-keyout", "authority.key", "-out", "authority.pem"),
        ),
        ("openssl", "req", *new, "-subj", "/CN=localhost", "-keyout", "key", "-out", "asked.pem"),
        (
            *("openssl", "x509", "-req", "-in", "asked.pem", "-out", "leaf.pem", "-days", "2"),
            *("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"),
            *("-extfile", "leaf.cnf"),
        ),
        ("certutil", "-N", *database, "--empty-password"),
        ("certutil", "-A", "-n", "authority", "-t", "C,,", "-i", "authority.pem", *database),
    ):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return Profile(folder / "profile", folder / "leaf.pem", folder / "key")
