# SPDX-License-Identifier: Apache-2.0
"""Programs that sign their return addresses and mark where calls may land (Armv8.3 and 8.5).

Debian 13 compiles all of its arm64 packages so: functions begin with ``paciasp`` or ``bti c``,
which a probe replaces and steps over, and a return probe puts its own address where one is about to
be signed. A probe one instruction further would kill the program. They run from a directory of
their own, as a container's programs do, below the Python of the release that the tests have.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "capture"))

from harness import CAPTURES, Captured, joined, wait_until
from keyed import TLS_1_3, Talker, labels, read_keys
from servers import free_port, listens, make_certificate, running

BESIDE = Path(os.environ.get("ECAPTURE_GUEST_BESIDE") or "/nowhere")
pytestmark = [
    CAPTURES,
    pytest.mark.skipif(not BESIDE.is_dir(), reason="needs programs that sign return addresses"),
]
SAID = [b"one is said\n", b"two is said\n"]
HEARD = [line.strip()[::-1] + b"\n" for line in SAID]


@pytest.fixture(scope="module")
def certificate():
    (BESIDE / "certificates").mkdir()
    return make_certificate(BESIDE / "certificates")


def inside(path):
    """The name of a file for those that have ``BESIDE`` as their root."""
    return f"/{path.relative_to(BESIDE)}"


def signs(library):
    """Whether a library's property note says that all of its code is marked and signed (3: both).

    AArch64 ELF ABI: GNU_PROPERTY_AARCH64_FEATURE_1_AND, four bytes of type and four of size before.
    """
    feature = (0xC0000000).to_bytes(4, "little") + (4).to_bytes(4, "little")
    content = library.read_bytes()
    at = content.find(feature)
    return at >= 0 and content[at + 8] & 3 == 3


def test_both_ends_and_their_keys(certificate, tmp_path):
    [library] = BESIDE.glob("usr/lib/*/libssl.so.3")
    assert signs(library)
    port, ours = free_port(), tmp_path / "ours.log"
    keys = BESIDE / "theirs.log"
    serve = ["chroot", BESIDE, "openssl", "s_server", "-quiet", "-rev", "-port", port]
    serve += ["-cert", inside(certificate.certificate), "-key", inside(certificate.key)]
    connect = ["chroot", BESIDE, "openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}"]
    with running(*serve, "-keylogfile", inside(keys)) as server:
        wait_until(lambda: listens(port), "the server listens")
        with (
            Captured(tmp_path, "-k", ours) as run,
            Talker(*connect) as client,
        ):
            for text in SAID:
                line = text.decode().strip()
                client.tell(line)
                client.said.wait_for(lambda said, line=line: line[::-1] in said, "the answer")
            wait_until(lambda: len(read_keys(ours)) >= len(TLS_1_3), "keys")
            run.finish()
    theirs, others = server.pid, client.process.pid
    assert joined(run.shown(pid=others, direction="write")) == b"".join(SAID)
    assert joined(run.shown(pid=theirs, direction="read")) == b"".join(SAID)
    assert joined(run.shown(pid=theirs, direction="write")) == b"".join(HEARD)
    assert joined(run.shown(pid=others, direction="read")) == b"".join(HEARD)
    assert {e.destination for e in run.shown(pid=others, direction="write")} == {
        f"127.0.0.1:{port}"
    }
    assert set(read_keys(ours)) <= set(read_keys(keys))
    assert labels(read_keys(ours)) == TLS_1_3
    assert run.summary["lost"] == run.summary["unreadable"] == 0


def test_a_shell(tmp_path):
    command = ("chroot", BESIDE, "bash", "--norc", "-c", "true one is said; (exit 4); exit 3")
    with Captured(
        tmp_path, "--non-interactive", probe="bash", mode="jsonl", command=command
    ) as run:
        run.finish(None, status=3)
    lines = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    told = [(line["text"], line["status"]) for line in lines]
    assert told[0] == ("true one is said", 0)
    assert told[-1] == ("exit 3", 3)
    assert run.summary["lost"] == 0
