# SPDX-License-Identifier: Apache-2.0
"""Programs written in Go: every release, every way to build them, the exact bytes of both ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from collections import defaultdict
from contextlib import ExitStack

import pytest
from gopeers import GoPeer, assert_exact, assert_told, command_for, stream_of, streams
from harness import CAPTURES, DEADLINE, joined, run_ecapture, selected, wait_until
from hyperframe.frame import DataFrame, Frame
from mounts import overlaid
from servers import free_port, listens, make_certificate, running, trusting
from toolchains import MODES, NEWEST, OLDEST, RELEASES, esbuild, gopeer

from ecapture.binary.elf import ElfFile
from ecapture.binary.identify import identify

pytestmark = CAPTURES
BOTH = pytest.mark.parametrize("release", [OLDEST, NEWEST])


@pytest.fixture
def start(open_folder):
    """``start(release, words...)`` starts gopeer; what still runs at the end is killed."""
    with ExitStack() as stack:

        def run(release, *words, mode="default"):
            program = gopeer(release, mode, open_folder)
            return stack.enter_context(GoPeer(command_for(mode, program), *words))

        yield run


@pytest.fixture
def captured(start, capture):
    """Plays a scene within a capture of its process alone; returns the program and the events."""

    def play(release, *words, mode="default", deadline=DEADLINE):
        program = start(release, *words, mode=mode)
        told = program.ready()
        assert told["go"].startswith(f"go{release}")
        with capture("--pid", program.pid, probe="gotls") as run:
            program.go()
            program.end(deadline)
            run.finish()
        for counter in ("lost", "unreadable", "malformed", "truncated"):
            assert run.summary[counter] == 0
        return program, run.shown()

    return play


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_is_shown_exactly(captured, release):
    program, shown = captured(release, "-rounds", "6", "-size", "20000")
    assert_exact(shown, program)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "default"])
@BOTH
def test_each_way_to_build_is_shown_exactly(captured, release, mode):
    program, shown = captured(release, "-size", "5000", mode=mode)
    assert_exact(shown, program)


@BOTH
def test_a_call_of_a_mebibyte_comes_whole(captured, release):
    program, shown = captured(release, "-rounds", "3", "-size", str(1 << 20))
    assert_exact(shown, program)
    assert max(event.call_length for event in selected(shown, direction="write")) == 1 << 20


@pytest.mark.parametrize("version", ["1.0", "1.2"])
@BOTH
def test_older_versions_of_tls(captured, release, version):
    # With CBC and TLS 1.0, Write sends the first byte of a message as a record of its own.
    program, shown = captured(release, "-tls", version, "-size", "3000")
    assert_exact(shown, program)


@BOTH
def test_ipv6(captured, release):
    program, shown = captured(release, "-network", "tcp6")
    assert_exact(shown, program)


@pytest.mark.parametrize("release", RELEASES)
def test_64_connections_on_stacks_that_grow_and_goroutines_that_move(captured, release):
    program, shown = captured(release, "-connections", "64", "-rounds", "12", "-size", "30000")
    assert_exact(shown, program, connections=64)
    assert len({event.tid for event in shown}) > 1


LONG = pytest.mark.skipif(
    "ECAPTURE_LONG" not in os.environ, reason="takes minutes: set ECAPTURE_LONG=1"
)


@pytest.mark.parametrize(
    "release, seconds",
    [
        (NEWEST, 15),
        pytest.param(OLDEST, 60, marks=LONG),
        pytest.param(NEWEST, 60, marks=LONG),
    ],
)
def test_64_connections_under_load(captured, release, seconds):
    words = ["-connections", "64", "-rounds", "2", "-seconds", seconds, "-size", "400"]
    program, shown = captured(release, *words, deadline=180)
    assert_exact(shown, program, connections=64)
    assert len({event.tid for event in shown}) > 1


def test_a_connection_of_an_unknown_type_is_known_by_the_goroutines_socket_call(captured):
    program, shown = captured(NEWEST, "-scene", "wrapped", "-connections", "8")
    found = streams(shown)
    for done in program.of("done"):
        for direction in ("read", "write"):
            assert stream_of(found, done, direction), "known at the latest by the second call"
    assert_some_are_known_and_none_wrongly(program, shown)


@pytest.mark.parametrize(
    "release, scene", [(NEWEST, "relayed"), (OLDEST, "relayed"), (OLDEST, "wrapped")]
)
def test_where_no_address_can_be_proven_none_is_shown(captured, release, scene):
    program, shown = captured(release, "-scene", scene)
    assert {(event.source, event.destination) for event in shown} == {("?", "?")}
    for direction in ("read", "write"):
        told = {done[direction]["bytes"] for done in program.of("done")}
        assert sum(len(e.payload) for e in selected(shown, direction=direction)) == 2 * told.pop()


def assert_some_are_known_and_none_wrongly(program, shown):
    ends = {(done["local"], done["remote"]) for done in program.of("done")}
    named = {(event.source, event.destination) for event in shown}
    assert named - {("?", "?")} <= ends
    moved = sum(done[d]["bytes"] for done in program.of("done") for d in ("read", "write"))
    assert sum(len(event.payload) for event in shown) == moved


@BOTH
def test_http1(captured, release):
    program, shown = captured(release, "-scene", "http1", "-connections", "4", "-size", "300000")
    found = streams(shown)
    for done in program.of("done"):
        for direction in ("read", "write"):
            assert_told(stream_of(found, done, direction), done[direction])
    assert len(program.of("body")) == 16


@BOTH
def test_http2(captured, release):
    program, shown = captured(release, "-scene", "http2", "-connections", "8", "-size", "200000")
    by_ends = defaultdict(list)
    for event in shown:
        by_ends[event.source, event.destination, event.direction].append(event)
    sent = {key[:2]: joined(events) for key, events in by_ends.items() if key[2] == "write"}
    received = {key[:2]: joined(events) for key, events in by_ends.items() if key[2] == "read"}
    # A read that returns while another goroutine closes finds no descriptor any more.
    received.pop(("?", "?"), None)
    for ends, content in received.items():
        assert sent[ends].startswith(content), "who closes does not read the last word"
    bodies = [digest for content in received.values() for digest in _bodies(content)]
    wanted = [body["sha256"] for body in program.of("body")]
    assert sorted(bodies) == sorted(2 * wanted), "there and back"


def _bodies(content):
    content = content.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    streams = defaultdict(hashlib.sha256)
    while len(content) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(content[:9]))
        if len(content) < 9 + length:
            # who closes may do so between the head of a frame and the rest; content is never left
            assert not isinstance(frame, DataFrame)
            break
        frame.parse_body(memoryview(content[9 : 9 + length]))
        if isinstance(frame, DataFrame):
            streams[frame.stream_id].update(frame.data)
        content = content[9 + length :]
    return [digest.hexdigest() for digest in streams.values()]


def test_a_program_is_hooked_when_it_starts(start, capture, open_folder):
    original = gopeer(NEWEST, "default", open_folder)
    fresh = open_folder / "gopeer-never-seen"
    shutil.copy(original, fresh)
    with capture("--comm", fresh.name[:15], "-d", probe="gotls") as run, GoPeer([fresh]) as program:
        program.ready()
        run.wait_attached(fresh)
        program.go()
        program.end()
        run.finish()
    assert_exact(run.shown(), program)


@BOTH
def test_a_launched_program_is_shown_from_its_first_byte(capture, open_folder, release):
    fresh = open_folder / f"gopeer-new-{release}"  # nobody has seen this file
    shutil.copy(gopeer(release, "default", open_folder), fresh)
    with capture(probe="gotls", command=[fresh, "-rounds", "2"]) as run:
        run.finish(None)
    shown = run.shown()
    sent, received = (joined(selected(shown, direction=d)) for d in ("write", "read"))
    assert len(sent) == len(received) == 2 * (1000 + 1000 // 7 + 1)


def test_a_file_named_by_hand(capture, open_folder):
    program = gopeer(NEWEST, "stripped", open_folder)
    with (
        capture("--elfpath", program, probe="tlsgo") as run,
        GoPeer(command_for("stripped", program)) as peer,
    ):
        peer.ready()
        peer.go()
        peer.end()
        run.finish()
    assert_exact(run.shown(), peer)


@pytest.mark.parametrize(
    ("version", "go", "convention"),
    [
        ("0.11.23", "go1.16.3", "stack"),
        ("0.13.15", "go1.17.2", "register"),  # the same table as 1.16
        ("0.14.39", "go1.18.1", "register"),
        ("0.28.2", "", "register"),  # Go 1.26.5, without build information
    ],
)
def test_stripped_programs_of_others_are_known(version, go, convention):
    with ElfFile(esbuild(version)) as elf:
        found = identify(elf)
    assert (found.kind, found.version, found.convention) == ("go", go, convention)
    assert found.visible
    assert all(found.returns.values())


@pytest.mark.needs("program:npm", "program:openssl")
def test_a_stripped_server_of_others(capture, open_folder, tmp_path):
    made = make_certificate(tmp_path)
    (tmp_path / "page.txt").write_bytes(b"a page of its own" * 5000)
    port = free_port()
    served = [f"--servedir={tmp_path}", f"--serve=127.0.0.1:{port}"]
    words = [esbuild("0.28.2"), *served, f"--certfile={made.certificate}", f"--keyfile={made.key}"]
    with running(*words, stdin=subprocess.PIPE) as server:
        wait_until(lambda: listens(port), "esbuild listens")
        with capture("--pid", server.pid, probe="gotls") as run:
            asked = b"GET /page.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            with (
                socket.create_connection(("127.0.0.1", port), DEADLINE) as plain,
                trusting(made).wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                ours = f"127.0.0.1:{connection.getsockname()[1]}"
                connection.sendall(asked)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert answer.endswith((tmp_path / "page.txt").read_bytes())
            run.finish()
    found = streams(run.shown())
    theirs = f"127.0.0.1:{port}"
    assert joined(found[server.pid, "read", ours, theirs]) == asked
    assert joined(found[server.pid, "write", theirs, ours]) == answer


@BOTH
def test_a_file_below_two_overlays_is_shown_once(capture, open_folder, tmp_path, release):
    below = tmp_path / "below"
    below.mkdir()
    shutil.copy(gopeer(release, "default", open_folder), below / "overlaid")
    with ExitStack() as stack:
        peers = []
        for name in ("one", "two"):
            place = stack.enter_context(overlaid(below, tmp_path / name))
            peers.append(stack.enter_context(GoPeer([place / "overlaid"])))
            peers[-1].ready()
        run = stack.enter_context(capture("--comm", "overlaid", probe="gotls"))
        for peer in peers:
            peer.go()
            peer.end()
        run.finish()
        for peer in peers:
            assert_exact(run.shown(), peer)


def test_a_file_that_is_not_of_go_is_refused(open_folder):
    done = run_ecapture("gotls", "-e", "/bin/true")
    assert done.returncode == 4
    assert b"crypto/tls.(*Conn).Read" in done.stderr
    assert b"ready:" not in done.stderr
