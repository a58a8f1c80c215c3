# SPDX-License-Identifier: Apache-2.0
"""Chromium, headless, against a server on loopback, in a network namespace with nothing else.

Its BoringSSL is built into a program of 300 megabytes without names, and its network service is a
process of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
import servers
from harness import CAPTURES, Captured, joined, wait_until
from keyed import PROGRAMS, TLS_1_3, labels, read_keys

from ecapture.kernel.feature import feature

pytestmark = [CAPTURES, pytest.mark.needs("program:chromium", "program:openssl", "program:ip")]
if platform.freedesktop_os_release().get("ID") == "ubuntu":
    pytestmark.append(pytest.mark.skip(reason="Ubuntu has Chromium as a snap only"))
CHROMIUM = Path("/usr/lib/chromium/chromium")  # /usr/bin/chromium is a script
DEADLINE = 120.0  # seconds; it writes a profile first
SERVICE = b"--utility-sub-type=network.mojom.NetworkService"
OPTIONS = ("--headless", "--disable-gpu", "--ignore-certificate-errors", "--dump-dom")
SANDBOX = "--enable-features=NetworkServiceSandbox,NetworkServiceSyscallFilter"
# An icon of its own, so that none is asked for.
PAGE = f'<html><head><link rel="icon" href="data:,"></head><body>{"said " * 40000}</body></html>'


@pytest.fixture
def serve(namespace, tmp_path):
    """``with serve(program):`` runs a server that keeps everything; answers its port."""
    certificate = servers.make_certificate(tmp_path)
    (tmp_path / "page").write_text(PAGE)
    (tmp_path / "seen").mkdir()
    words = (certificate.certificate, certificate.key, tmp_path / "theirs.log", tmp_path / "seen")

    def start(program):
        inside = ("ip", "netns", "exec", namespace, sys.executable, PROGRAMS / program)
        return servers.running(*inside, *words, tmp_path / "page")

    return start


def check(run, port, tmp_path):
    """Every byte of every connection, its ends and its keys; answers the process that spoke."""
    seen = tmp_path / "seen"
    wait_until(lambda: list(seen.glob("*.out")), "connections")
    came = {int(path.stem): path.with_suffix(".in") for path in seen.glob("*.out")}
    assert run.summary["flows"] == len(came)
    (pid,) = {event.pid for event in run.shown()}
    if feature("tp_btf:sock_send_length") or feature("kprobe"):
        far, pairs = f"127.0.0.1:{port}", set()
        for number, path in came.items():
            local = f"127.0.0.1:{number}"
            pairs |= {("write", local, far), ("read", far, local)}
            wrote = joined(run.shown(direction="write", source=local))
            read = joined(run.shown(direction="read", destination=local))
            # the server may still be at it
            wait_until(lambda path=path, wrote=wrote: path.read_bytes() == wrote, "all it wrote")
            out = path.with_suffix(".out")
            wait_until(lambda out=out, read=read: out.read_bytes() == read, "all it read")
        assert {(e.direction, e.source, e.destination) for e in run.shown()} == pairs
    ours, theirs = (read_keys(tmp_path / name) for name in ("ours.log", "theirs.log"))
    assert set(ours) <= set(theirs)
    of_connection = defaultdict(list)
    for line in ours:
        of_connection[line.split()[1]].append(line)
    assert len([1 for lines in of_connection.values() if labels(lines) == TLS_1_3]) >= len(came)
    assert run.summary["lost"] == run.summary["unreadable"] == run.summary["truncated"] == 0
    return pid


@pytest.mark.parametrize(
    "server, first",
    [
        ("exact_server.py", b"GET /page HTTP/1.1\r\n"),
        ("exact_http2_server.py", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ],
    ids=["http1", "http2"],
)
def test_chromium(serve, namespace, tmp_path, server, first):
    with (
        serve(server) as serving,
        Captured(tmp_path, "--libssl", CHROMIUM, "-k", tmp_path / "ours.log") as run,
    ):
        port = serving.stdout.readline().strip()
        words = ["ip", "netns", "exec", namespace, CHROMIUM, "--no-sandbox", *OPTIONS]
        words += [f"--user-data-dir={tmp_path / 'profile'}", f"https://localhost:{port}/page"]
        how = {"env": os.environ | {"HOME": str(tmp_path)}, "stderr": subprocess.DEVNULL}
        with servers.running(*words, **how) as browser:
            shown, _ = browser.communicate(timeout=DEADLINE)
        run.finish()
        assert check(run, port, tmp_path) != browser.pid
    assert "said " * 40000 in shown
    assert any(event.payload.startswith(first) for event in run.shown(direction="write"))


def test_the_first_run_of_a_browser_that_nobody_has_seen(serve, namespace, tmp_path, monkeypatch):
    """Its script leads to the program, which is looked into before it starts."""
    monkeypatch.setattr("harness.DEADLINE", DEADLINE)  # until it is ready: some seconds' work
    keys, inside = tmp_path / "ours.log", ("ip", "netns", "exec", namespace)
    command = ["chromium", "--no-sandbox", *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"]
    env = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with serve("exact_http2_server.py") as serving:
        port = serving.stdout.readline().strip()
        command.append(f"https://localhost:{port}/page")
        how = {"prefix": inside, "env": env, "stdout": subprocess.DEVNULL}
        with Captured(tmp_path, "-k", keys, command=command, **how) as run:
            run.process.wait(DEADLINE)
            run.finish(number=None)
        check(run, port, tmp_path)
        assert f"{CHROMIUM} is new and large: looking into its code" in run.stderr


def service_of(profile):
    """What the kernel says of the network service that uses a profile; empty without one."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            if SERVICE in words and os.fsencode(profile) in words:
                return (folder / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ""


@pytest.mark.needs("program:runuser")
def test_a_network_service_under_seccomp(serve, namespace, tmp_path):
    """As a user without rights, with Chromium's own sandbox around the process that speaks."""
    with tempfile.TemporaryDirectory(prefix="ecapture-tests-") as home:
        shutil.chown(home, "nobody")
        with (
            serve("exact_http2_server.py") as serving,
            Captured(tmp_path, "--libssl", CHROMIUM, "-k", tmp_path / "ours.log") as run,
        ):
            port = serving.stdout.readline().strip()
            words = ["ip", "netns", "exec", namespace, "runuser", "-u", "nobody", "--"]
            words += ["env", f"HOME={home}", f"TMPDIR={home}", CHROMIUM, *OPTIONS, SANDBOX]
            words += [f"--user-data-dir={home}/profile", f"https://localhost:{port}/page"]
            with servers.running(*words, stderr=subprocess.DEVNULL) as browser:
                wait_until(
                    lambda: "Seccomp:\t2" in service_of(home) or browser.poll() is not None,
                    "a network service that is filtered",
                    DEADLINE,
                )
                assert browser.poll() is None
                shown, _ = browser.communicate(timeout=DEADLINE)
            run.finish()
            check(run, port, tmp_path)
    assert "said " * 40000 in shown
