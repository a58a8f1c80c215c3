# SPDX-License-Identifier: Apache-2.0
"""The plaintext of TLS connections on a Linux host, by eBPF.

``Capture`` is a live capture, ``Replay`` a recorded one; iterating either yields the events of
``ecapture.events``. The names below are loaded when they are first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecapture.config import CaptureConfig, Limits, Scope
    from ecapture.errors import ECaptureError
    from ecapture.session import Capture, Replay

__all__ = ["Capture", "CaptureConfig", "ECaptureError", "Limits", "Replay", "Scope"]

_HOMES = {
    "Capture": "ecapture.session",
    "CaptureConfig": "ecapture.config",
    "ECaptureError": "ecapture.errors",
    "Limits": "ecapture.config",
    "Replay": "ecapture.session",
    "Scope": "ecapture.config",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
