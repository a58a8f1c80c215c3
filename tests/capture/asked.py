# SPDX-License-Identifier: Apache-2.0
"""Captures of what databases are asked, as objects of ``-m jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Captured, wait_until


class Asked(Captured):
    """``ecapture postgres -m jsonl`` running."""

    def __init__(self, folder: Path, *options: object, **how: Any) -> None:
        how = {"probe": "postgres", "mode": "jsonl"} | how
        super().__init__(folder, *options, **how)

    def so_far(self, **wanted: object) -> list[dict[str, Any]]:
        """The statements until now whose members are as wanted; a last line may be unfinished."""
        path = Path(self.path)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if all(one[name] == value for name, value in wanted.items())]

    def wait_for(self, count: int, **wanted: object) -> None:
        """Returns when there are so many of them."""
        wait_until(lambda: len(self.so_far(**wanted)) >= count, f"{count} of {wanted}")

    def statements(self, **wanted: object) -> list[dict[str, Any]]:
        """Ends the capture; nothing was lost. The statements whose members are as wanted."""
        if self.process.poll() is None:
            self.finish()
        summary = self.summary
        assert (summary["lost"], summary["malformed"], summary["unreadable"]) == (0, 0, 0)
        assert summary["statements"] == len(self.so_far())
        return self.so_far(**wanted)


def told(statements: list[dict[str, Any]], *names: str) -> list[Any]:
    """These members of each, as tuples; of one name the member itself."""
    if len(names) == 1:
        return [one[names[0]] for one in statements]
    return [tuple(one[name] for name in names) for one in statements]


def by_session(
    statements: list[dict[str, Any]], key: Callable[[dict[str, Any]], Any]
) -> dict[Any, list[dict[str, Any]]]:
    """Statements under what tells their sessions apart."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for one in statements:
        found.setdefault(key(one), []).append(one)
    return found
