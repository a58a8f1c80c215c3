# SPDX-License-Identifier: Apache-2.0
"""Plaintext of programs that use rustls, stripped ones too: byte for byte what their peer had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import servers
from harness import CAPTURES, DEADLINE, joined, run_ecapture, wait_until
from keyed import PROGRAMS, Talker, packages, s_client, unpacked
from witnessed import assert_exact, witness_server

from ecapture.kernel.feature import feature

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl")]
ADDRESSES = pytest.mark.skipif(
    not feature("tp_btf:sock_send_length"), reason="needs tp_btf:sock_send_length"
)
BOTH = pytest.mark.parametrize("version", ["1.2", "1.3"])
QUIET = {"UV_HTTP_RETRIES": "0", "NO_COLOR": "1"}
SIZE = 300_000  # many records, none of which ends where a request does
PARALLEL = 24
_DENO = """
const url = Deno.args[0], body = "q".repeat(SIZE);
await (await fetch(url + "one/3")).text();
await (await fetch(url + "two", {method: "POST", body})).text();
await (await fetch(url + "three/20000")).text();
""".replace("SIZE", str(SIZE))
_DENO_PARALLEL = """
await Promise.all(Array.from({length: PARALLEL}, async (_, n) => {
    const body = `question ${n} `.repeat(200 + n);
    const heard = await (await fetch(Deno.args[0] + "of/a" + n, {method: "POST", body})).text();
    if (heard !== body) throw new Error("not what was said");
}));
""".replace("PARALLEL", str(PARALLEL))
_DENO_ONE = "console.log((await (await fetch(Deno.args[0])).text()).length);"
_PRIMP = """
import sys
sys.path.insert(0, sys.argv[1])
import primp
print("ready", flush=True)
for line in sys.stdin:
    url, client = line.strip(), primp.Client(verify=False)
    client.get(url + "one/3").text
    client.post(url + "two", content=b"q" * SIZE).text
    print(len(client.get(url + "three/20000").content), flush=True)
    del client
""".replace("SIZE", str(SIZE))
_OBSTORE = """
import sys
sys.path.insert(0, sys.argv[1])
import obstore
from obstore.store import HTTPStore
print("ready", flush=True)
for line in sys.stdin:
    store = HTTPStore.from_url(line.strip(), client_options={"allow_invalid_certificates": True})
    print(len(store.get("one/3").bytes()), len(store.get("three/20000").bytes()), flush=True)
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture
def witness(certificate, tmp_path):
    """``witness("1.3")`` starts the server that keeps what each connection said and heard."""
    with ExitStack() as stack:
        yield lambda version: stack.enter_context(witness_server(certificate, tmp_path, version))


def program(key):
    """An executable of the corpus."""
    path = packages.fetch(key)
    path.chmod(0o755)
    return path


def command(key, folder, url, script=_DENO):
    """What fetches something from a server whose certificate it does not know."""
    if key == "rustls-deno":
        (folder / "script.js").write_text(script)
        options = ("-q", "-A", "--no-config", "--unsafely-ignore-certificate-errors")
        return [program(key), "run", *options, folder / "script.js", url]
    (folder / "requirements.in").write_text("a-package\n")
    host = url.removeprefix("https://").rstrip("/")
    options = ("--quiet", "--no-cache", "--no-config", "--allow-insecure-host", host)
    wanted = ("--index-url", f"{url}simple", folder / "requirements.in")
    return [program(key), "pip", "compile", *options, *wanted]


@ADDRESSES
@BOTH
@pytest.mark.parametrize("key", ["rustls-uv-0.9.5", "rustls-uv-0.13.8", "rustls-deno"])
def test_stripped_programs_that_are_started(key, version, witness, capture, tmp_path):
    server = witness(version)
    how = {"command": command(key, tmp_path, server.url), "env": QUIET | {"HOME": str(tmp_path)}}
    with capture(probe="rustls", **how) as run:
        talks = server.talks(1)
        run.process.wait(DEADLINE)
        run.finish(number=None, status=run.process.returncode)
    assert_exact(run, talks)
    if key == "rustls-deno":
        heard, said = next(iter(talks.values()))
        assert len(heard) > SIZE
        assert len(said) > SIZE + 20000 * len("thing /three/20000 ")


class Library(Talker):
    """A Python program with a library that is rustls; it fetches from the URLs it is told."""

    def __init__(self, script, key, wheels):
        super().__init__(sys.executable, "-c", script, unpacked(key, wheels))
        self.said.wait_for(lambda line: line == "ready\n", "ready")


@ADDRESSES
@BOTH
@pytest.mark.parametrize(
    "key, script, connections", [("rustls-primp", _PRIMP, 2), ("rustls-obstore", _OBSTORE, 1)]
)
def test_libraries_of_programs_that_run(
    key, script, connections, version, witness, capture, wheels
):
    server = witness(version)
    with (
        Library(script, key, wheels) as program,
        capture("--pid", program.process.pid, probe="rustls") as run,
    ):
        for number in range(connections):
            program.tell(server.url)
            wait_until(
                lambda number=number: len(program.said.so_far()) == number + 2, "what was fetched"
            )
        program.process.stdin.close()
        program.process.wait(DEADLINE)
        talks = server.talks(connections)
        run.finish()
    assert_exact(run, talks)


@ADDRESSES
def test_many_connections_at_once_are_told_apart(witness, capture, tmp_path):
    server = witness("1.3")
    words = command("rustls-deno", tmp_path, server.url, _DENO_PARALLEL)
    with capture(probe="rustls", mode="jsonl", raw=False, command=words) as run:
        assert run.process.wait(DEADLINE) == 0
        talks = server.talks(2)
        run.finish(number=None)
    events = [json.loads(line) for line in Path(run.path).read_text().splitlines()]
    asked = [e for e in events if e["type"] == "exchange"]
    assert run.summary["flows"] == len(talks)
    assert run.summary["lost"] == 0
    assert len(asked) == PARALLEL
    for event in asked:
        path = event["request"]["target"]
        body = f"question {path.removeprefix('/of/a')} ".encode()
        heard, said = talks[event["connection"]["local_port"]]
        assert f"POST {path} HTTP".encode() in heard
        assert body in said
        assert event["request"]["body"] == event["response"]["body"]
    assert len({e["request"]["target"] for e in asked}) == PARALLEL


@ADDRESSES
@BOTH
def test_a_server(certificate, version, wheels, capture):
    with Talker(
        sys.executable, PROGRAMS / "rustls_peer.py", unpacked("rustls-rtls", wheels)
    ) as peer:
        peer.said.wait_for(lambda line: line == "ready\n", "ready")
        with capture("--pid", peer.process.pid, probe="rustls") as run:
            peer.tell(f"serve {certificate.certificate} {certificate.key} {version}")
            port = int(peer.said.wait_for(lambda line: line[:-1].isdigit(), "a port"))
            with s_client(port) as client:
                client.tell("a line")
                client.said.wait_for(lambda line: "a line" in line, "the answer")
            peer.said.wait_for(lambda line: line.startswith("TLSv"), "the end")
            run.finish()
    heard, said = run.shown()
    assert (heard.direction, heard.payload) == ("read", b"a line\n")
    assert (said.direction, said.payload) == ("write", b"a line\n")
    assert heard.destination == said.source == f"127.0.0.1:{port}"
    assert heard.source == said.destination
    assert run.summary["flows"] == 1


@ADDRESSES
@pytest.mark.needs("program:nginx")
def test_http2_as_har(certificate, capture, tmp_path):
    with servers.nginx(tmp_path, certificate, http2=True) as server:
        (tmp_path / "nginx/files/small").write_bytes(b"small thing\n")
        url = f"https://localhost:{server.port}/small"
        words = command("rustls-deno", tmp_path, url, _DENO_ONE)
        with capture(probe="rustls", mode="har", command=words) as run:
            assert run.process.wait(DEADLINE) == 0
            run.finish(number=None)
    (entry,) = json.loads(Path(run.path).read_text())["log"]["entries"]
    assert entry["request"]["url"] == url
    assert entry["request"]["httpVersion"] == entry["response"]["httpVersion"] == "HTTP/2"
    assert entry["response"]["content"]["text"] == "small thing\n"
    assert entry["serverIPAddress"] == "127.0.0.1"


def test_all_libraries_at_once_show_it_once(witness, capture, tmp_path):
    server = witness("1.3")
    words = command("rustls-uv-0.9.5", tmp_path, server.url)
    how = {"command": words, "env": QUIET | {"HOME": str(tmp_path)}}
    with capture("--only", "tls,rustls", probe="all", **how) as run:
        ((heard, said),) = server.talks(1).values()
        run.process.wait(DEADLINE)
        run.finish(number=None, status=run.process.returncode)
    assert joined(run.shown(direction="write")) == heard
    assert joined(run.shown(direction="read")) == said


def test_what_is_cut_is_marked(witness, capture, tmp_path):
    server = witness("1.3")
    words = command("rustls-uv-0.9.5", tmp_path, server.url)
    how = {"command": words, "env": QUIET | {"HOME": str(tmp_path)}}
    with capture("--truncate", 100, probe="rustls", **how) as run:
        ((heard, _said),) = server.talks(1).values()
        run.process.wait(DEADLINE)
        run.finish(number=None, status=run.process.returncode)
    (asked,) = run.shown(direction="write")
    assert (asked.payload, asked.length, asked.missing) == (heard[:100], len(heard), "truncated")
    assert run.summary["truncated"] == len(run.shown(missing="truncated"))


def test_a_recording_tells_the_same(witness, capture, tmp_path):
    server = witness("1.3")
    words = command("rustls-uv-0.9.5", tmp_path, server.url)
    how = {"command": words, "env": QUIET | {"HOME": str(tmp_path)}}
    with capture(probe="rustls", mode="record", raw=False, **how) as run:
        ((heard, said),) = server.talks(1).values()
        run.process.wait(DEADLINE)
        run.finish(number=None, status=run.process.returncode)
    replayed = run_ecapture("replay", run.path, "-m", "text")
    assert replayed.returncode == 0
    assert b" http/1.1 request " in replayed.stdout
    assert heard.split(b"\r\n")[0] in replayed.stdout
    assert said.rpartition(b"\r\n")[2] in replayed.stdout


def test_targets_say_what_proves_it(wheels):
    with Library(_PRIMP, "rustls-primp", wheels) as program:
        listed = json.loads(
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "ecapture",
                    "targets",
                    "--json",
                    "-p",
                    str(program.process.pid),
                ],
                check=True,
                capture_output=True,
                env=os.environ,
            ).stdout
        )
    (target,) = [t for t in listed if t["kind"] == "rustls"]
    assert target["visible"]
    assert target["how"] == "fingerprint"
    assert target["reason"] == ""
    assert "TLS 1.3" in target["evidence"]["MessageEncrypter::encrypt"]
    assert "starts there by frame-table" in target["evidence"]["tls13::MessageDecrypter::decrypt"]
