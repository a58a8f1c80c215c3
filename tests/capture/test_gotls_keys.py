# SPDX-License-Identifier: Apache-2.0
"""Keys of Go programs, line for line those of the other end."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from gopeers import GoPeer, command_for
from harness import CAPTURES
from keyed import Keyed, key_server, labels, read_keys, s_client
from servers import make_certificate
from toolchains import MODES, NEWEST, OLDEST, RELEASES, gopeer

pytestmark = CAPTURES
BOTH = pytest.mark.parametrize("release", [OLDEST, NEWEST])
# Go tells no exporter secret.
TLS_1_3 = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_TRAFFIC_SECRET_0",
]
ROUNDS = {"1.2": ["CLIENT_RANDOM"], "1.3": TLS_1_3}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def start(open_folder):
    """``start(release, words...)`` starts gopeer; what still runs at the end is killed."""
    with ExitStack() as stack:

        def run(release, *words, mode="default"):
            program = gopeer(release, mode, open_folder)
            return stack.enter_context(GoPeer(command_for(mode, program), *words))

        yield run


def keys_of(tmp_path, program, *options, probe="gotls"):
    """The key log of a capture within which the program does what it was started for."""
    program.ready()
    with Keyed(tmp_path, "--pid", program.pid, *options, probe=probe) as captured:
        program.go()
        program.end()
        lines = captured.lines()
    for counter in ("lost", "unreadable", "malformed"):
        assert captured.summary[counter] == 0
    return lines, captured.summary


@pytest.mark.parametrize(
    "release, version", [(OLDEST, "1.2"), (NEWEST, "1.2"), *((each, "1.3") for each in RELEASES)]
)
def test_each_release(start, tmp_path, release, version):
    told = tmp_path / "server.log"
    program = start(release, "-tls", version, "-connections", "4", "-keylog", told)
    lines, summary = keys_of(tmp_path, program)
    assert set(lines) == set(read_keys(told))
    assert labels(lines) == sorted(4 * ROUNDS[version])
    assert summary["events"] == 2 * len(lines), "once by each end, whatever the stack does"


# How a function begins depends on the mode where the goroutine is not in a register.
@pytest.mark.parametrize(
    "release, mode",
    [(OLDEST, "pie"), (OLDEST, "c-shared"), *((NEWEST, m) for m in MODES if m != "default")],
)
def test_each_way_to_build(start, tmp_path, release, mode):
    told = tmp_path / "server.log"
    lines, _ = keys_of(tmp_path, start(release, "-keylog", told, mode=mode))
    assert set(lines) == set(read_keys(told))
    assert labels(lines) == TLS_1_3


@pytest.mark.needs("program:openssl")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@BOTH
def test_a_client_without_a_key_log_of_its_own(start, certificate, tmp_path, release, version):
    told = tmp_path / "server.log"
    with key_server(certificate, told) as (server, _said):
        address = f"127.0.0.1:{server.port}"
        program = start(release, "-scene", "dial", "-address", address, "-tls", version)
        lines, _ = keys_of(tmp_path, program)
    theirs = [line for line in read_keys(told) if not line.startswith("EXPORTER_SECRET")]
    assert set(lines) == set(theirs)
    assert labels(lines) == ROUNDS[version]


@pytest.mark.needs("program:openssl")
@BOTH
def test_a_server_without_a_key_log_of_its_own(start, tmp_path, release):
    told = tmp_path / "client.log"
    program = start(release, "-scene", "serve")
    program.ready()
    with Keyed(tmp_path, "--pid", program.pid, probe="gotls") as captured:
        program.go()
        port = program.wait_told("listens")["address"].rpartition(":")[2]
        with s_client(int(port), "-keylogfile", told) as client:
            client.tell("a line")
            program.end()
        lines = captured.lines()
    theirs = [line for line in read_keys(told) if not line.startswith("EXPORTER_SECRET")]
    assert set(lines) == set(theirs)
    assert labels(lines) == TLS_1_3


def test_all_libraries_at_once(start, tmp_path):
    told = tmp_path / "server.log"
    lines, _ = keys_of(tmp_path, start(NEWEST, "-keylog", told), probe="all")
    assert set(lines) == set(read_keys(told))
    assert labels(lines) == TLS_1_3


def test_keys_beside_plaintext(start, tmp_path):
    told = tmp_path / "server.log"
    program = start(NEWEST, "-keylog", told)
    how = {"mode": "text", "output": ""}
    program.ready()
    with Keyed(tmp_path, "--pid", program.pid, probe="gotls", **how) as captured:
        program.go()
        program.end()
        lines = captured.lines()
    assert set(lines) == set(read_keys(told))
    moved = sum(done[d]["bytes"] for done in program.of("done") for d in ("read", "write"))
    assert sum(len(event.payload) for event in captured.shown()) == moved
