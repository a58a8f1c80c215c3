# SPDX-License-Identifier: Apache-2.0
"""Programs that nobody has seen before and that speak at once, launched under a capture.

Where plaintext passes has to be read out of the code of these, some of a hundred megabytes; the
capture begins before they do. The second run finds what the first one learned.
"""

from __future__ import annotations

import shutil
import sys

import pytest
import servers
from harness import CAPTURES, DEADLINE, joined
from keyed import packages, unpacked
from witnessed import assert_exact, witness_server

from ecapture.binary import loader
from ecapture.binary.elf import ElfFile

pytestmark = [CAPTURES, pytest.mark.needs("program:openssl")]
_NODE = """
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
require("https").get("%s", {agent: false}, answer => answer.resume());
"""
_PRIMP = """
import sys
import primp
primp.Client(verify=False).get(sys.argv[1]).text
"""
_OBSTORE = """
import sys
def fetch():
    from obstore.store import HTTPStore
    options = {"allow_invalid_certificates": True}
    return HTTPStore.from_url(sys.argv[1], client_options=options).get("one/3").bytes()
fetch()
"""
_BUN = "await (await fetch('%s', {tls: {rejectUnauthorized: false}, keepalive: false})).text()"


def _uv(program, url, folder):
    (folder / "requirements.in").write_text("a-package\n")
    host = url.removeprefix("https://").rstrip("/")
    options = ("-q", "--no-cache", "--no-config", "--allow-insecure-host", host, "--index-url", url)
    return [program, "pip", "compile", *options, folder / "requirements.in"]


COMMANDS = {
    "rustls-uv-0.9.5": ("rustls", _uv),
    "boringssl-bun": ("tls", lambda program, url, _folder: [program, "-e", _BUN % url]),
    "node-24": ("tls", lambda program, url, _folder: [program, "-e", _NODE % url]),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("key", COMMANDS)
def test_every_byte_of_the_first_run_and_of_the_second(key, capture, certificate, tmp_path):
    probe, command = COMMANDS[key]
    program = tmp_path / "program"
    shutil.copy(packages.fetch(key), program)
    program.chmod(0o755)
    env = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "UV_HTTP_RETRIES": "0"}
    seen = set()
    with witness_server(certificate, tmp_path, "1.3") as server:
        for _run in ("first", "second"):
            words = command(program, server.url, tmp_path)
            with capture(probe=probe, command=words, env=env) as run:
                run.process.wait(DEADLINE)
                run.finish(number=None, status=run.process.returncode)
            talks = server.talks(len(seen) + 1)
            (port,) = talks.keys() - seen
            seen.add(port)
            heard, said = talks[port]
            assert joined(run.shown(direction="write")) == heard
            assert joined(run.shown(direction="read")) == said


@pytest.mark.parametrize(
    "key, text", [("rustls-primp", _PRIMP), ("rustls-obstore", _OBSTORE)], ids=["primp", "obstore"]
)
def test_a_module_that_a_script_imports(key, text, capture, certificate, tmp_path):
    """Its thirty megabytes take longer to look into than the script lives."""
    (tmp_path / "main.py").write_text(text)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": unpacked(key, tmp_path)}
    with witness_server(certificate, tmp_path, "1.3") as server:
        words = [sys.executable, tmp_path / "main.py", server.url]
        with capture(probe="rustls", command=words, env=env) as run:
            run.process.wait(DEADLINE)
            run.finish(number=None, status=0)
        assert_exact(run, server.talks(1))


@pytest.mark.needs("program:curl", "program:chroot")
def test_a_library_in_a_tree_that_becomes_the_root(capture, certificate, tmp_path):
    tree = tmp_path / "tree"
    curl = shutil.which("curl")
    for place in (*loader.closure(curl), str(loader.CACHE)):
        copy = tree / place.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place, copy)
    with ElfFile(curl) as elf:
        interpreter = elf.interpreter
    (tree / interpreter.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(interpreter, tree / interpreter.lstrip("/"))
    (tree / "usr" / "bin").mkdir(parents=True, exist_ok=True)
    with witness_server(certificate, tmp_path, "1.3") as server:
        words = ("chroot", tree, curl, "--silent", "--insecure", "--http1.1", server.url)
        env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        with capture(command=words, env=env) as run:
            run.process.wait(DEADLINE)
            run.finish(number=None, status=run.process.returncode)
        ((heard, said),) = server.talks(1).values()
    assert joined(run.shown(direction="write")) == heard
    assert joined(run.shown(direction="read")) == said
