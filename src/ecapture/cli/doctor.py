# SPDX-License-Identifier: Apache-2.0
"""``ecapture doctor``: what works here, what does not, what that costs and what to do about it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Literal

import click
import msgspec

from ecapture._wire import WIRE_VERSION
from ecapture.cli.console import document, own_command, visible
from ecapture.cli.targets import examine as examine_targets
from ecapture.errors import ECaptureError
from ecapture.kernel import numbering
from ecapture.kernel.attach import CONTAINED
from ecapture.kernel.feature import NOT_PERMITTED, Answer, feature, features
from ecapture.probes import probes

Verdict = Literal["ok", "limited", "missing", "unknown"]
# linux/capability.h
_SYS_ADMIN = 21
_NEEDED_RIGHTS = {39: "CAP_BPF", 38: "CAP_PERFMON"}  # CAP_SYS_ADMIN includes both
# number: name, what includes it, what is missing without
_OTHER_RIGHTS = {
    19: ("CAP_SYS_PTRACE", 19, "processes of other users are not looked into"),
    2: ("CAP_DAC_READ_SEARCH", 1, "files that only other users may read are not looked into"),
    40: ("CAP_CHECKPOINT_RESTORE", _SYS_ADMIN, "deleted and replaced libraries are not observed"),
    12: ("CAP_NET_ADMIN", 12, "packets cannot be captured"),
}
_NEEDED_FEATURES = {"bpf", "ringbuf", "uprobe"}
_SHOWN = 3  # files that cannot be observed, of each probe


class Finding(msgspec.Struct, frozen=True):
    """One line of the report."""

    subject: str
    verdict: Verdict
    found: str
    costs: str = ""
    remedy: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array on standard output.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Say what this kernel, these rights and this build can do, and what to do about the rest.

    The exit code is 3 if capturing is impossible.
    """
    findings = examine()
    if as_json:
        click.echo(document(findings))
    else:
        _show(findings)
    context.exit(3 if any(finding.verdict == "missing" for finding in findings) else 0)


def examine() -> list[Finding]:
    """All findings, most fundamental first."""
    found: list[Finding] = []
    for question in (
        _machine,
        _rights,
        _lockdown,
        _features,
        _seccomp,
        _processes,
        _mounts,
        _observed,
        _build,
        _leftovers,
    ):
        try:
            found += question()
        except (OSError, ECaptureError, ValueError) as error:
            found.append(Finding(question.__name__.strip("_"), "unknown", str(error)))
    return found


def _machine() -> list[Finding]:
    machine = platform.machine()
    good = machine in ("x86_64", "aarch64")
    release = f"Linux {platform.release()} on {machine}"
    return [
        Finding(
            "machine", "ok" if good else "missing", release, "" if good else "no programs for it"
        )
    ]


def _rights() -> list[Finding]:
    match = re.search(
        r"^CapEff:\s+([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return rights_in(int(match[1], 16) if match else 0)


def rights_in(held: int) -> list[Finding]:
    """What a set of capabilities, one bit each, is good for."""
    lacking = [
        name for bit, name in _NEEDED_RIGHTS.items() if not held & (1 << bit | 1 << _SYS_ADMIN)
    ]
    remedy = CONTAINED if os.geteuid() == 0 else f"run: sudo {own_command()} doctor"
    # The root of a user namespace holds them all, but only there.
    if lacking or NOT_PERMITTED in feature("bpf").reason:
        found = (
            "without " + " and ".join(lacking) if lacking else "the kernel does not permit bpf()"
        )
        return [Finding("rights", "missing", found, "nothing can be captured", remedy)]
    others = [
        (name, costs)
        for bit, (name, including, costs) in _OTHER_RIGHTS.items()
        if not held & (1 << bit | 1 << including)
    ]
    if not others:
        return [Finding("rights", "ok", "all that is needed")]
    found = "without " + ", ".join(name for name, _costs in others)
    return [Finding("rights", "limited", found, "; ".join(costs for _, costs in others), remedy)]


def _lockdown() -> list[Finding]:
    try:
        text = Path("/sys/kernel/security/lockdown").read_text().strip()
    except OSError:
        return [
            Finding(
                "lockdown",
                "unknown",
                "securityfs is not mounted",
                remedy="mount -t securityfs none /sys/kernel/security",
            )
        ]
    mode = re.search(r"\[(\w+)\]", text)
    if mode and mode[1] == "confidentiality":
        return [
            Finding(
                "lockdown",
                "missing",
                text,
                "the kernel refuses to read any memory",
                "boot without lockdown=confidentiality",
            )
        ]
    return [Finding("lockdown", "ok", text)]


def _features() -> list[Finding]:
    found = []
    for asked in features():
        if asked.answer is Answer.YES:
            found.append(Finding(asked.name, "ok", asked.reason or "yes"))
        elif asked.answer is Answer.UNKNOWN:
            remedy = "see rights" if NOT_PERMITTED in asked.reason else asked.remedy
            found.append(Finding(asked.name, "unknown", asked.reason, asked.costs, remedy))
        else:
            verdict: Verdict = "missing" if asked.name in _NEEDED_FEATURES else "limited"
            text = f"no (since {asked.since}): {asked.reason}"
            found.append(Finding(asked.name, verdict, text, asked.costs, asked.remedy))
    return found


def _seccomp() -> list[Finding]:
    if platform.machine() != "x86_64" or os.geteuid() != 0:
        return []
    from ecapture.kernel.seccomp import return_probe_kills  # noqa: PLC0415 - forks a child

    kills = return_probe_kills()
    if kills is None:
        return [Finding("return probes under seccomp", "unknown", "the trial did not work")]
    if not kills:
        return [Finding("return probes under seccomp", "ok", "a sandboxed child survived one")]
    return [
        Finding(
            "return probes under seccomp",
            "limited",
            "this kernel kills sandboxed programs at return probes",
            "only writes are shown where such a program could be hit",
            "a kernel with the fix of February 2025 (6.14 and stable updates)",
        )
    ]


def _processes() -> list[Finding]:
    if not numbering.are_of_host():
        return [
            Finding(
                "processes",
                "limited",
                "this is the PID namespace of a container",
                "only its processes are looked at; process ids in the output are those of the host;"
                " no -- command, no --follow, no container ids",
                "run on the host, or in a container with --pid=host",
            )
        ]
    return [Finding("processes", "ok", "the processes of the host are visible")]


def _mounts() -> list[Finding]:
    mounted = {line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    if "cgroup2" in mounted:
        return [Finding("cgroup2", "ok", "mounted")]
    return [
        Finding(
            "cgroup2",
            "limited",
            "not mounted",
            "--cgroup_path cannot be used",
            "mount -t cgroup2 none DIR",
        )
    ]


def _build() -> list[Finding]:
    objects = Path(__file__).parent.parent / "objects"
    present = sorted(path.name.removesuffix(".bpf.o") for path in objects.glob("*.bpf.o"))
    own = f"plaintext.{platform.machine()}"
    if own not in present:
        return [
            Finding(
                "build",
                "missing",
                f"no {own} in {objects}",
                "nothing can be loaded",
                "install the package anew",
            )
        ]
    return [Finding("build", "ok", f"wire version {WIRE_VERSION}; {', '.join(present)}")]


def _observed() -> list[Finding]:
    """For each probe the libraries and programs of this host that it is for."""
    listed, _skipped = examine_targets()
    found = []
    for name, probe in probes().items():
        files = {target.file: target for target in listed if target.probe == name}
        visible = sum(target.visible for target in files.values())
        hidden = [f"{t.file}: {t.reason}" for t in files.values() if not t.visible]
        subject = f"ecapture {name}"
        if not files:
            found.append(Finding(subject, "ok", "nothing on this host uses it at the moment"))
            continue
        text = f"{visible} of {len(files)} files can be observed"
        verdict: Verdict = "ok" if visible else "limited"
        costs = "" if visible else probe.summary
        found.append(Finding(subject, verdict, "; ".join([text, *hidden[:_SHOWN]]), costs))
    return found


def _leftovers() -> list[Finding]:
    """Probes that an earlier run could have left.

    Ours are links, which end with their process; so this tells of running captures, too.
    """
    found = []
    others = [pid for pid in _running("ecapture") if pid != os.getpid()]
    if others:
        found.append(
            Finding(
                "other captures",
                "ok",
                f"running now: {', '.join(map(str, others))}",
                "each adds its cost to what it traces",
            )
        )
    events = Path("/sys/kernel/tracing/uprobe_events")
    try:
        lines = [line for line in events.read_text().splitlines() if "ecapture" in line]
    except OSError:
        lines = []
    if lines:
        found.append(
            Finding(
                "leftovers",
                "limited",
                f"{len(lines)} tracefs uprobes named ecapture",
                remedy=f"echo > {events}",
            )
        )
    return found or [Finding("leftovers", "ok", "none")]


def _running(name: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text(errors="replace").strip() == name:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _show(findings: list[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only where it is shown
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    colours = {"ok": "green", "limited": "yellow", "missing": "red", "unknown": "cyan"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "found", "costs", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        colour = colours[finding.verdict]
        advice = (finding.costs, finding.remedy) if finding.verdict != "ok" else ("", "")
        cells = map(escape, map(visible, (finding.subject, finding.found, *advice)))
        table.add_row(f"[{colour}]{finding.verdict}[/]", *cells)
    Console(width=None if os.isatty(1) else 200, highlight=False).print(table)
