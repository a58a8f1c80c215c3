# SPDX-License-Identifier: Apache-2.0
"""The programs that capture tests rely on do what they say, seen without any tracer.

Every option runs once; what one end reports to have written is what the other reports to have
read, and both are the bytes that ``build.stream`` predicts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("programs_build", Path(__file__).parent / "build.py")
programs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(programs)

TOKEN = "tok-4711"
SIZES = [1, 100, 16384, 100000]
PAYLOAD = ["--token", TOKEN, "--sizes", ",".join(map(str, SIZES))]


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def peer(out_dir):
    return programs.build("tlspeer", out_dir)


def run(program, *words, expected=0):
    done = subprocess.run(
        [program, *words, *PAYLOAD],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == expected, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(events, kind, **wanted):
    return [
        event
        for event in events
        if event["event"] == kind and all(event[key] == value for key, value in wanted.items())
    ]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def assert_agreed(events, connections=1, layer="only", count=1):
    said = {side: programs.stream(TOKEN, side, SIZES, count) for side in "cs"}
    for side, writes, reads in (("client", "c", "s"), ("server", "s", "c")):
        ends = of(events, "done", side=side, layer=layer)
        assert len(ends) == connections
        for end in ends:
            assert end["verified"]
            for direction, label in (("write", writes), ("read", reads)):
                assert end[direction]["bytes"] == len(said[label])
                assert end[direction]["sha256"] == sha256(said[label])
    assert events[-1]["ok"]


PLAIN = {
    "plain": [],
    "ex": ["--read-ex", "--write-ex"],
    "tls12": ["--tls", "1.2"],
    "ipv6": ["--ipv6"],
    "unix": ["--unix"],
    "socket-bio": ["--bio", "socket"],
    "custom-bio": ["--bio", "custom"],
    "memory-bio": ["--memory-bio"],
    "memory-bio-retries": ["--memory-bio", "--moving"],
    "tiny-reads": ["--read-size", "97"],
}


@pytest.mark.parametrize("words", PLAIN.values(), ids=PLAIN.keys())
def test_both_ends_agree(peer, words):
    assert_agreed(run(peer, "pair", *words))


@pytest.mark.parametrize(
    "name",
    ["tlspeer-static", "tlspeer-static-dynsym", "tlspeer-static-symtab", "tlspeer-stripped"],
)
def test_each_way_of_linking_has_the_symbols_it_promises(out_dir, name):
    program = programs.build(name, out_dir)
    found = {}
    for table, flag in (("symtab", []), ("dynsym", ["-D"])):
        listed = subprocess.run(
            ["nm", *flag, program], capture_output=True, text=True, check=False
        ).stdout
        found[table] = " T SSL_write\n" in listed
    assert found == {
        "symtab": name in {"tlspeer-static", "tlspeer-static-symtab"},
        "dynsym": name in {"tlspeer-static", "tlspeer-static-dynsym"},
    }
    assert_agreed(run(program, "pair"))


def test_a_program_is_built_again_only_when_a_source_is_newer(tmp_path):
    first = programs.build("tlspeer", tmp_path).stat()
    assert programs.build("tlspeer", tmp_path).stat().st_ino == first.st_ino
    os.utime(tmp_path / "tlspeer", (1, 1))
    assert programs.build("tlspeer", tmp_path).stat().st_mtime > 1


def test_what_does_not_compile_says_so(tmp_path):
    with pytest.raises(programs.BuildError):
        programs.build("tlspeer", tmp_path, cc="false")


@pytest.mark.parametrize("words", [["--peek"], ["--peek", "--read-ex"]], ids=["plain", "ex"])
def test_peeks_do_not_change_what_is_read(peer, words):
    events = run(peer, "pair", *words)
    assert_agreed(events)
    assert all(end["peeks"] == end["read"]["calls"] for end in of(events, "done"))


@pytest.mark.parametrize("words", [["--partial"], ["--moving"], ["--partial", "--moving"]])
def test_a_full_socket_forces_retries(peer, words):
    events = run(peer, "pair", "--count", "5", *words)
    assert_agreed(events, count=5)
    writes = [end["write"] for end in of(events, "done")]
    assert all(write["retries"] > 0 for write in writes)
    # Which of the long calls returns early depends on how the reader keeps up.
    returned_early = any(write["calls"] > 5 * len(SIZES) for write in writes)
    assert returned_early == ("--partial" in words)


def test_early_data_arrives_early(peer):
    events = run(peer, "pair", "--early-data")
    assert_agreed(events, connections=2)
    early = programs.stream(TOKEN, "e", SIZES)
    (writer,) = of(events, "done", side="client", generation=1)
    (reader,) = of(events, "done", side="server", generation=1)
    assert writer["early_write"]["sha256"] == reader["early_read"]["sha256"] == sha256(early)


def test_a_file_arrives_whole_and_its_way_is_named(peer, tmp_path):
    (tmp_path / "file").write_bytes(programs.message(TOKEN, "f", 0, 300000))
    events = run(peer, "pair", "--sendfile", tmp_path / "file")
    assert_agreed(events)
    sent, received = (of(events, "sendfile", side=side)[0] for side in ("client", "server"))
    assert sent["moved"]["sha256"] == received["moved"]["sha256"]
    assert sent["moved"]["bytes"] == 300000
    assert sent["function"] == ("SSL_sendfile" if sent["ktls"] else "SSL_write")
    assert sent["ktls"] or "kTLS" in sent["reason"]


def test_threads_take_turns_on_one_connection(peer):
    events = run(peer, "pair", "--threads", "3")
    assert_agreed(events)
    for end in of(events, "done"):
        assert len(end["write"]["tids"]) == 3
        assert len(end["read"]["tids"]) == 3


def test_forked_workers_each_serve(peer):
    events = run(peer, "pair", "--fork", "3")
    assert_agreed(events, connections=3)
    workers = {event["pid"] for event in of(events, "worker")}
    assert {end["pid"] for end in of(events, "done", side="server")} == workers
    assert len(workers) == 3


@pytest.mark.parametrize("word", ["--reuse-handle", "--clear"])
def test_a_handle_comes_back(peer, word):
    events = run(peer, "pair", word, "--connections", "3")
    assert_agreed(events, connections=3)
    for side in ("client", "server"):
        ends = of(events, "done", side=side)
        assert len({end["ssl"] for end in ends}) == 1
        assert len({json.dumps([end["local"], end["remote"]]) for end in ends}) == 3


@pytest.mark.parametrize("inside", ["read", "write"])
def test_it_dies_inside_the_call(peer, inside):
    events = run(peer, "pair", "--die-mid-call", inside, expected=-signal.SIGKILL)
    assert events[-1]["event"] == "dying"
    assert events[-1]["inside"] == f"SSL_{inside}"
    assert of(events, "done", side="client")[0]["verified"]


def test_the_other_end_survives_a_death(peer):
    command = [peer, "server", "--hold", *PAYLOAD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        port = json.loads(server.stdout.readline())["port"]
        client = subprocess.run(
            [peer, "client", "--port", str(port), "--die-mid-call", "read", *PAYLOAD],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert client.returncode == -signal.SIGKILL
        last = json.loads(server.stdout.read().splitlines()[-1])
    assert last["ok"]


def test_tls_inside_tls(peer):
    events = run(peer, "pair", "--tls-in-tls")
    assert_agreed(events, layer="inner")
    outer = {end["side"]: end for end in of(events, "done", layer="outer")}
    assert outer["client"]["write"]["bytes"] > sum(SIZES)
    for one, other in (("client", "server"), ("server", "client")):
        # The last record, the inner farewell, may be left unread.
        assert outer[one]["read"]["bytes"] <= outer[other]["write"]["bytes"]


@pytest.mark.parametrize("shape", ["nested-up", "nested-down", "interleaved"])
def test_fibers_share_a_thread(peer, shape):
    events = run(peer, "pair", "--fibers", shape)
    assert_agreed(events, connections=2)
    clients = of(events, "done", side="client")
    assert len({tid for end in clients for tid in end["write"]["tids"]}) == 1
    assert len({end["ssl"] for end in clients}) == 2


def test_a_seccomp_filter_is_in_force(peer):
    events = run(peer, "pair", "--seccomp")
    assert_agreed(events)
    assert [event["mode"] for event in of(events, "confined")] == [2, 2]


def test_two_processes_agree(peer):
    with subprocess.Popen([peer, "server", *PAYLOAD], stdout=subprocess.PIPE, text=True) as server:
        port = json.loads(server.stdout.readline())["port"]
        events = run(peer, "client", "--port", str(port))
        events = [json.loads(line) for line in server.stdout.read().splitlines()] + events
    assert server.returncode == 0
    assert_agreed(events)
    ends = {end["side"]: end for end in of(events, "done")}
    assert ends["client"]["local"] == ends["server"]["remote"]
    assert ends["client"]["remote"] == ends["server"]["local"] == ["127.0.0.1", port]
    assert ends["client"]["pid"] != ends["server"]["pid"]


@pytest.mark.parametrize(
    "words, stage",
    [
        (["--wait-go"], "start"),
        (["--wait-connected"], "connected"),
        (["--wait-connected", "--tls-in-tls"], "connected"),
        (["--wait-connected", "--fibers", "nested-up"], "connected"),
        (["--wait-go", "--fork", "2"], "start"),
    ],
)
def test_nothing_is_said_before_the_word_is_given(peer, words, stage):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([peer, "pair", *words], **pipes) as program:
        before = []
        while not before or before[-1]["event"] != "ready":
            before.append(json.loads(program.stdout.readline()))
        assert before[-1]["ready"] == stage
        assert bool(of(before, "connected")) == (stage == "connected")
        rest, _ = program.communicate("go\n", timeout=60)
    assert program.returncode == 0
    assert not of(before, "done")
    assert of([json.loads(line) for line in rest.splitlines()], "done")


@pytest.mark.parametrize(
    "words",
    [
        ["pair", "--sizes", "0"],
        ["pair", "--token", 'a"b'],
        ["client"],
        ["pair", "--tls", "1.1"],
        ["pair", "--early-data", "--tls", "1.2"],
        ["pair", "--unix", "--fork", "2"],
    ],
)
def test_what_makes_no_sense_is_refused(peer, words):
    done = subprocess.run([peer, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr
    assert not done.stdout
