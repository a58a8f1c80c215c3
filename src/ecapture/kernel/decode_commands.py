# SPDX-License-Identifier: Apache-2.0
"""What is not known of a session of a database server, in words for people; nothing is made up.

``_commands`` decodes the records (``bpf/dispatch.bpf.c``) and asks here where something is missing.
"""

from __future__ import annotations

from typing import Final

from ecapture._wire import CommandFlag

_NAMES: Final = (
    # name, its bit of "known", the flags that say that it is cut, or could not be read
    ("user", 1, CommandFlag.USER_CUT, CommandFlag.USER_UNREAD),
    ("client", 2, CommandFlag.HOST_CUT, CommandFlag.HOST_UNREAD),
    ("database", 4, CommandFlag.DATABASE_CUT, CommandFlag.DATABASE_UNREAD),
)
_REMARKS: Final = (
    *((unread, f"{name} could not be read") for name, _, _, unread in _NAMES),
    *((cut, f"{name} is cut") for name, _, cut, _ in _NAMES),
)


def unknown(known: int, told: int) -> str:
    """Why user, client and database are not there, or not whole.

    ``known`` are those that the server's build shows, ``told`` the flags of the record.
    """
    hidden = [name for name, bit, _, _ in _NAMES if not known & bit]
    said = [f"this build does not show {', '.join(hidden)}"] if hidden else []
    said += [remark for flag, remark in _REMARKS if told & flag]
    return "; ".join(said)
