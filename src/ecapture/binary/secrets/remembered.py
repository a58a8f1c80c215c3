# SPDX-License-Identifier: Apache-2.0
"""Remembers from run to run where the secrets of a file's library pass by.

Reading that out of a libssl takes some hundredths of a second, out of a program such as node one to
two seconds. A remembered site is planted only after the bytes there were compared with ``head``.
"""

from __future__ import annotations

import msgspec

from ecapture.binary.cache import Remembered
from ecapture.binary.secrets.sites import NotLocated, SecretSites


class Located(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer of ``locate``: ``sites``, or why there are none."""

    sites: SecretSites | None = None
    reason: str = ""

    @classmethod
    def of(cls, answer: SecretSites | NotLocated) -> Located:
        """Return the answer in the form in which it can be stored."""
        if isinstance(answer, NotLocated):
            return cls(reason=answer.reason)
        return cls(sites=answer)


class SitesCache(Remembered[Located]):
    """Where secrets pass by, by file."""

    file_name = "secrets.json"
    judgement = Located
