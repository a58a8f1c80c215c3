# SPDX-License-Identifier: Apache-2.0
"""Finds every ``PROBE`` in this package. A new probe is a new module, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ecapture.probes.spec import ProbeSpec


@cache
def probes() -> dict[str, ProbeSpec]:
    """All probes by name, sorted."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name == "spec":
            continue
        probe = importlib.import_module(f"{__name__}.{module.name}").PROBE
        if probe.name in found:
            raise AssertionError(f"two probes are called {probe.name}")
        found[probe.name] = probe
    return dict(sorted(found.items()))
