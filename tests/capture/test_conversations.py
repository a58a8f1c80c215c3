# SPDX-License-Identifier: Apache-2.0
"""Which conversation a call belongs to, and between whom it is held, seen through the library."""

from __future__ import annotations

import signal

import pytest
from harness import CAPTURES
from peers import assert_conversation, conversations_of, ends_of

from ecapture.config import CaptureConfig, Scope
from ecapture.events import ConversationEnd, Plaintext, ProcessExit

pytestmark = CAPTURES


@pytest.fixture
def watched_pair(watch, peer):
    """A pair and all events of it, without losses."""

    def play(*words, **how):
        program = peer("pair", "--wait-go", *words, **how)
        program.wait_for("ready")
        with watch(CaptureConfig(scope=Scope(pids=(program.pid,)))) as run:
            program.go()
            program.end()
            events = run.finish()
        assert run.capture.summary.lost == 0
        return program, events

    return play


def ends_reported(done):
    return tuple(done["local"]), tuple(done["remote"])


def test_the_library_yields_the_events_of_both_ends(watched_pair):
    program, events = watched_pair()
    for done in program.of("done"):
        (conversation,) = conversations_of(events, done)
        assert_conversation(conversation, done, program)
        assert ends_of(conversation) == {ends_reported(done)}
        assert {event.connection.family for event in conversation} == {"ipv4"}
        assert {event.fd for event in conversation} <= {-1, *range(64)}


@pytest.mark.parametrize("word", ["--reuse-handle", "--clear"])
def test_a_handle_that_comes_back_is_another_conversation(watched_pair, word):
    program, events = watched_pair(word, "--connections", "3")
    for side in ("client", "server"):
        ends = program.of("done", side=side)
        assert len({done["ssl"] for done in ends}) == 1
        conversations = conversations_of(events, ends[0])
        assert len(conversations) == 3
        for done, conversation in zip(ends, conversations, strict=True):
            assert_conversation(conversation, done, program)
            assert ends_of(conversation) == {ends_reported(done)}


def test_a_conversation_ends_once_and_after_its_last_byte(watched_pair):
    _, events = watched_pair("--reuse-handle", "--connections", "2")
    ends = [e for e in events if isinstance(e, ConversationEnd)]
    assert {e.reason for e in ends} == {"freed"}
    talked = {e.conversation for e in events if isinstance(e, Plaintext)}
    assert sorted(e.conversation for e in ends) == sorted(talked)
    for end in ends:
        later = events[events.index(end) :]
        assert not [
            e for e in later if isinstance(e, Plaintext) and e.conversation == end.conversation
        ]


@pytest.mark.needs("tp_btf:sched_process_exit")
def test_the_end_of_a_process_ends_its_conversations(watch, peer):
    server = peer("server", "--hold")
    words = "client", "--port", server.port, "--die-mid-call", "read", "--wait-go"
    client = peer(*words, token=server.token)
    client.wait_for("ready")
    with watch(CaptureConfig(scope=Scope(comms=("tlspeer",)))) as run:
        client.go()
        client.end(-signal.SIGKILL)
        run.wait_for(
            lambda events: any(isinstance(e, ProcessExit) and e.pid == client.pid for e in events),
            "exit of the client",
        )


def test_tls_inside_tls_is_two_conversations_over_one_connection(watched_pair):
    program, events = watched_pair("--tls-in-tls")
    for done in program.of("done", layer="inner"):
        (conversation,) = conversations_of(events, done)
        assert_conversation(conversation, done, program)
        assert ends_of(conversation) <= {ends_reported(done)}
    for done in program.of("done", layer="outer"):
        (conversation,) = conversations_of(events, done)
        assert ends_of(conversation) == {ends_reported(done)}
        for direction in ("write", "read"):
            moved = sum(e.length for e in conversation if e.direction == direction)
            assert moved == done[direction]["bytes"]


def test_a_local_socket_has_no_address_and_it_is_said_why(watched_pair):
    program, events = watched_pair("--unix")
    for done in program.of("done"):
        (conversation,) = conversations_of(events, done)
        assert_conversation(conversation, done, program)
        assert {e.no_connection for e in conversation} == {"the descriptor is a Unix-domain socket"}


AGES = {"ipv4": [], "ipv6": ["--ipv6"], "socket-bio": ["--bio", "socket"]}


@pytest.mark.parametrize("words", AGES.values(), ids=AGES.keys())
def test_a_connection_older_than_the_capture_has_its_ends(watch, peer, words):
    program = peer("pair", "--wait-connected", *words)
    assert program.wait_for("ready")["ready"] == "connected"
    with watch(CaptureConfig(scope=Scope(pids=(program.pid,)))) as run:
        program.go()
        program.end()
        events = run.finish()
    for done in program.of("done"):
        (conversation,) = conversations_of(events, done)
        assert_conversation(conversation, done, program)
        assert ends_of(conversation) == {ends_reported(done)}
        assert {e.connection.found_by for e in conversation} == {"nested_call"}
