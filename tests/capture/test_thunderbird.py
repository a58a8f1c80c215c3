# SPDX-License-Identifier: Apache-2.0
"""Thunderbird, headless, reading mail from a server on loopback that nothing else can reach."""

from __future__ import annotations

import os
import platform
import subprocess
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
    pytest.mark.needs("program:thunderbird", "program:certutil", "program:openssl", "program:ip"),
]
if platform.freedesktop_os_release().get("ID") == "ubuntu":
    pytestmark.append(pytest.mark.skip(reason="Ubuntu has Thunderbird as a snap only"))
DEADLINE = 120.0  # seconds; it writes a profile first

_PREFERENCES = """
user_pref("mail.accountmanager.accounts", "account1");
user_pref("mail.accountmanager.defaultaccount", "account1");
user_pref("mail.account.account1.server", "server1");
user_pref("mail.account.account1.identities", "id1");
user_pref("mail.identity.id1.useremail", "user@localhost");
user_pref("mail.identity.id1.valid", true);
user_pref("mail.server.server1.type", "imap");
user_pref("mail.server.server1.hostname", "localhost");
user_pref("mail.server.server1.port", PORT);
user_pref("mail.server.server1.socketType", 3);
user_pref("mail.server.server1.userName", "user");
user_pref("mail.server.server1.name", "user");
user_pref("mail.server.server1.login_at_startup", true);
user_pref("mail.provider.suppress_dialog_on_startup", true);
user_pref("mailnews.start_page.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.trr.mode", 5);
"""
HEAD = (
    "From: somebody@localhost\r\nTo: user@localhost\r\nSubject: seen in thunderbird\r\n"
    "Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@localhost>\r\n"
    + "".join(f"Received: by host-{n}.localhost with ESMTP\r\n" for n in range(1000))
    + "Content-Type: text/plain; charset=us-ascii\r\n\r\n"
)
TEXT = "What nobody else reads.\r\n" * 50  # of new mail it asks for the first 2048 bytes


def goes_on(seen):
    """Whether on some connection something is asked for after the mail's text was read."""
    for path in seen.glob("*.in"):
        behind = path.read_bytes().partition(b"BODY.PEEK[TEXT]")[2]
        if behind.count(b"\r\n") > 1:
            return True
    return False


def test_thunderbird(namespace, tmp_path):
    """Every byte of every connection, its ends, and the keys that its server wrote."""
    profile = make_profile(tmp_path)
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    seen, inside = tmp_path / "seen", ("ip", "netns", "exec", namespace)
    seen.mkdir()
    (tmp_path / "mail").write_bytes((HEAD + TEXT).encode())
    server = (sys.executable, PROGRAMS / "exact_imap_server.py", *profile[1:], theirs, seen)
    with (
        running(*inside, *server, tmp_path / "mail") as serving,
        Captured(tmp_path, "-k", ours, probe="nss") as run,
    ):
        port = serving.stdout.readline().strip()
        (profile.folder / "user.js").write_text(_PREFERENCES.replace("PORT", port))
        words = [*inside, "thunderbird", "--headless", "--no-remote", "--profile", profile.folder]
        how = {"env": os.environ | {"HOME": str(tmp_path)}, "stderr": subprocess.DEVNULL}
        with running(*words, **how) as thunderbird:
            wait_until(lambda: goes_on(seen), "the mail to be fetched", DEADLINE)
        wait_until(lambda: len(read_keys(ours)) >= len(TLS_1_3), "keys")
        run.finish()
    events = [e for e in run.shown() if port in f"{e.source} {e.destination}"]
    assert {e.pid for e in events} == {thunderbird.pid}
    came = {path.stem: path for path in seen.glob("*.in")}
    assert len(came) == run.summary["flows"]
    if feature("tp_btf:sock_send_length") or feature("kprobe"):
        everything = b""
        for number, path in came.items():
            local = f"127.0.0.1:{number}"
            wrote = joined(run.shown(direction="write", source=local))
            read = joined(run.shown(direction="read", destination=local))
            wait_until(lambda path=path, wrote=wrote: path.read_bytes() == wrote, "all it wrote")
            # it was ended while it worked: what was said to it last it may not have read
            assert path.with_suffix(".out").read_bytes().startswith(read)
            everything += read
        assert HEAD.encode() in everything
        assert TEXT.encode() in everything
        assert everything.count(b"* PREAUTH ") == len(came)
    assert set(read_keys(ours)) <= set(read_keys(theirs))
    of_connection = defaultdict(list)
    for line in read_keys(ours):
        of_connection[line.split()[1]].append(line)
    complete = [lines for lines in of_connection.values() if labels(lines) == TLS_1_3]
    assert len(complete) >= len(came)
    assert run.summary["lost"] == run.summary["unreadable"] == 0
