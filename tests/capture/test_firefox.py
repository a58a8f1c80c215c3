# SPDX-License-Identifier: Apache-2.0
"""Firefox, headless, against a server on loopback, in a network namespace that has nothing else."""

from __future__ import annotations

import os
import platform
import sys
from collections import defaultdict

import pytest
from harness import CAPTURES, Captured, joined, wait_until
from keyed import PROGRAMS, TLS_1_3, labels, read_keys
from profiles import make_profile
from servers import running

from ecapture.kernel.feature import feature

pytestmark = [
    CAPTURES,
    pytest.mark.needs("program:firefox-esr", "program:certutil", "program:openssl", "program:ip"),
]
if platform.freedesktop_os_release().get("ID") == "ubuntu":
    pytestmark.append(pytest.mark.skip(reason="Ubuntu has Firefox as a snap only"))
DEADLINE = 120.0  # seconds; it writes a profile first

_PREFERENCES = """
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.trr.mode", 5);
"""


def test_firefox(namespace, tmp_path):
    """Every byte of every connection, its ends, and the keys that its server wrote."""
    profile, certificate, key = make_profile(tmp_path, _PREFERENCES)
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    seen, inside = tmp_path / "seen", ("ip", "netns", "exec", namespace)
    seen.mkdir()
    page = "<html><body>" + "seen in firefox " * 5000 + "</body></html>"
    (tmp_path / "page").write_text(page)
    server = (sys.executable, PROGRAMS / "exact_server.py", certificate, key, theirs)
    with (
        running(*inside, *server, seen, tmp_path / "page") as serving,
        Captured(tmp_path, "-k", ours, probe="nss") as run,
    ):
        port = serving.stdout.readline().strip()
        words = [*inside, "firefox-esr", "--headless", "--no-remote", "--profile", profile]
        words += ["--screenshot", tmp_path / "page.png", f"https://localhost:{port}/page"]
        with running(*words, env=os.environ | {"HOME": str(tmp_path)}) as firefox:
            firefox.communicate(timeout=DEADLINE)
            assert firefox.returncode == 0
        wait_until(lambda: len(read_keys(ours)) >= len(TLS_1_3), "keys")
        run.finish()
    events = [e for e in run.shown() if port in f"{e.source} {e.destination}"]
    assert {e.pid for e in events} == {firefox.pid}
    came = {path.stem: path.read_bytes() for path in seen.glob("*.in")}
    assert any(content.startswith(b"GET /page HTTP/1.1\r\n") for content in came.values())
    assert len(came) == run.summary["flows"]
    if feature("tp_btf:sock_send_length") or feature("kprobe"):
        for number, content in came.items():
            local, went = f"127.0.0.1:{number}", (seen / f"{number}.out").read_bytes()
            assert joined(run.shown(direction="write", source=local)) == content
            assert joined(run.shown(direction="read", destination=local)) == went
    # it opens connections that it never uses, and may end while it does
    assert set(read_keys(ours)) <= set(read_keys(theirs))
    of_connection = defaultdict(list)
    for line in read_keys(ours):
        of_connection[line.split()[1]].append(line)
    complete = [lines for lines in of_connection.values() if labels(lines) == TLS_1_3]
    assert len(complete) >= len(came)
    assert run.summary["lost"] == run.summary["unreadable"] == 0
