# SPDX-License-Identifier: Apache-2.0
"""``ecapture targets``: who can be observed: TLS libraries, servers, shells; or why not."""

from __future__ import annotations

import os

import click
import msgspec

from ecapture.binary.cache import Cache
from ecapture.binary.calls.completion import CallsCache, Completion
from ecapture.binary.file import text_of_name
from ecapture.binary.library import KEYS_ONLY, Library
from ecapture.binary.process import Process, processes
from ecapture.binary.scan import Found, Skipped, pinned, scan
from ecapture.cli.console import document, own_command, say, visible
from ecapture.config import Scope
from ecapture.errors import PermissionMissing, TargetError
from ecapture.probes import probes

_SHOWN = 20  # of what could not be looked at


class Target(msgspec.Struct, frozen=True):
    """What can be observed of one process, or not; ``pid`` 0: a file that no process has loaded."""

    pid: int
    comm: str
    uid: int
    container: str
    file: str
    kind: str
    version: str
    linkage: str
    how: str
    visible: bool
    reason: str
    probe: str
    build_id: str
    functions: list[str]
    evidence: dict[str, str] = {}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array on standard output.")
@click.option("-p", "--pid", "pids", type=int, multiple=True, help="Only this process. Repeatable.")
def targets(*, as_json: bool, pids: tuple[int, ...]) -> None:
    """List every process that is of interest: TLS libraries, database servers, shells.

    And whether this program can show what passes through it: if not, why.
    """
    Scope(pids=pids).check()
    found, skipped = examine(pids)
    if as_json:
        click.echo(document(found))
    else:
        _show(found)
    _tell_skipped(skipped)


def _tell_skipped(skipped: list[Skipped]) -> None:
    others = []
    if os.geteuid() != 0:
        others = [miss for miss in skipped if "CAP_" in miss.reason]
        say(f"not looked at: {len(others)} processes of others; run: sudo {own_command()} targets")
    rest = [miss for miss in skipped if miss not in others]
    for miss in rest[:_SHOWN]:
        say(f"not looked at: {miss.subject}: {miss.reason}")
    if len(rest) > _SHOWN:
        say(f"not looked at: {len(rest) - _SHOWN} more")


def examine(pids: tuple[int, ...] = ()) -> tuple[list[Target], list[Skipped]]:
    """All targets by process, unmapped libraries last; and what could not be looked at."""
    skipped: list[Skipped] = []
    by_kind = {kind: probe.name for probe in probes().values() for kind in probe.kinds}
    named = {process.pid: process for process in processes(pids or None)}
    listed: list[Target] = []
    completion = Completion(CallsCache.of_user())
    with Cache.of_user() as cache:
        for found in scan(cache, pids or None, skipped):
            if found.library.kind in KEYS_ONLY:
                continue
            library = _completed(completion, found)
            listed += [
                _target(found, library, named.get(pid), by_kind)
                for pid in found.pids or (0,)
                if pid == 0 or pid in named
            ]
    completion.save()
    listed.sort(key=lambda target: (target.pid == 0, target.pid, target.file))
    return listed, skipped


def _completed(completion: Completion, found: Found) -> Library:
    try:
        with pinned(found) as path:
            return completion.of(path, found.library)
    except (TargetError, PermissionMissing):  # gone by now, or another file
        return found.library


def _target(
    found: Found, library: Library, process: Process | None, by_kind: dict[str, str]
) -> Target:
    return Target(
        pid=process.pid if process else 0,
        comm=text_of_name(process.comm) if process else "",
        uid=process.uid if process else 0,
        container=process.container.id if process and process.container else "",
        file=text_of_name(found.name),
        kind=library.kind,
        version=library.version,
        linkage=library.linkage,
        how=library.how,
        visible=library.visible,
        reason=library.reason,
        probe=by_kind.get(library.kind, ""),
        build_id=library.build_id,
        functions=sorted(library.functions),
        evidence=library.evidence,
    )


def _show(found: list[Target]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only where it is shown
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if not found:
        say("no process was found that is of interest")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("visible", "pid", "command", "library", "found by", "file", "why not"):
        table.add_column(heading, overflow="fold")
    for target in found:
        table.add_row(
            "[green]yes[/]" if target.visible else "[red]no[/]",
            str(target.pid) if target.pid else "(none yet)",
            *(
                escape(visible(cell))
                for cell in (
                    target.comm,
                    target.version or target.kind,
                    target.how,
                    target.file,
                    target.reason,
                )
            ),
        )
    console = Console(width=None if os.isatty(1) else 200, highlight=False)
    console.print(table)
    seen = len({target.pid for target in found if target.visible and target.pid})
    unseen = {target.pid for target in found if target.pid} - {
        target.pid for target in found if target.visible
    }
    say(f"{seen} processes can be seen, {len(unseen)} cannot")
