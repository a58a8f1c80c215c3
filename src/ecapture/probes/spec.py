# SPDX-License-Identifier: Apache-2.0
"""What a probe is: a frozen value that names a library or program and the hooks in it."""

from __future__ import annotations

import msgspec

from ecapture.plan import Hook


class ProbeSpec(msgspec.Struct, frozen=True):
    """One observed library or program.

    ``kinds`` are the names that ``binary.library`` gives to files this probe understands.
    ``explicit_option`` is the command-line option that names such a file by hand.
    ``unattended_hooks`` are placed only if what nobody types is wanted as well.
    """

    name: str
    summary: str
    kinds: tuple[str, ...]
    hooks: tuple[Hook, ...]
    required: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    explicit_option: str = ""
    unattended_hooks: tuple[Hook, ...] = ()
