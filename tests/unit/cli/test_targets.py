# SPDX-License-Identifier: Apache-2.0
"""The list of targets names processes with a TLS implementation, and says why one is not seen."""

import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ecapture.binary.scan import Skipped
from ecapture.cli import targets
from ecapture.cli.targets import Target


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_this_process_is_listed_with_its_library():
    assert ssl.OPENSSL_VERSION
    found, _skipped = targets.examine((os.getpid(),))
    own = [one for one in found if one.pid == os.getpid() and one.kind == "openssl"]
    assert own
    assert own[0].visible
    assert own[0].probe == "tls"
    assert "SSL_write" in own[0].functions


def test_json_has_every_field():
    shown = CliRunner().invoke(targets.targets, ["--json", "-p", str(os.getpid())])
    assert shown.exit_code == 0
    (first, *_) = json.loads(shown.stdout)
    assert set(first) == set(Target.__struct_fields__)
    assert first["pid"] == os.getpid()


def test_names_that_are_no_text_are_listed_as_such(tmp_path):
    [own] = {
        line.split(maxsplit=5)[5].strip()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("/libssl.so.3")
    }
    library = shutil.copy(own, tmp_path / os.fsdecode(b"\xff.so"))
    name = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'x\\xff', 0, 0, 0)"  # PR_SET_NAME
    waits = f"{name}; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", waits, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"\n"
        shown = CliRunner().invoke(targets.targets, ["--json", "-p", str(process.pid)])
    finally:
        process.communicate()
    assert shown.exception is None
    [listed] = [one for one in json.loads(shown.stdout) if one["kind"] == "openssl"]
    assert (listed["comm"], listed["file"]) == (r"x\xff", rf"{tmp_path}/\xff.so")


def target(**fields):
    values = {
        "pid": 1, "comm": "x", "uid": 0, "container": "", "file": "/lib/x", "kind": "openssl",
        "version": "", "linkage": "", "how": "", "visible": True, "reason": "", "probe": "tls",
        "build_id": "", "functions": [],
    }  # fmt: skip
    return Target(**(values | fields))


def test_the_table_escapes_what_processes_call_themselves(monkeypatch):
    name = "/tmp/\x1b[31m[/x]"
    odd = [
        target(comm="[red]x[/]", file=name, version="OpenSSL [/]"),
        target(pid=0, visible=False, reason="stripped", file="/no"),
    ]
    monkeypatch.setattr(targets, "examine", lambda _pids: (odd, []))
    shown = CliRunner().invoke(targets.targets, []).stdout
    assert "[red]x[/]" in shown
    assert "OpenSSL [/]" in shown
    assert r"/tmp/\x1b[31m[/x]" in shown
    assert "(none yet)" in shown
    assert "stripped" in shown
    odd[:] = [target(comm="a\x9b31m")]
    shown = CliRunner().invoke(targets.targets, ["--json"]).stdout
    assert r"a\u009b31m" in shown
    assert json.loads(shown)[0]["comm"] == "a\x9b31m"
    odd[:] = [target(comm="a\udcff", file="/tmp/\udce9")]
    (found,) = json.loads(CliRunner().invoke(targets.targets, ["--json"]).stdout)
    assert (found["comm"], found["file"]) == (r"a\xff", r"/tmp/\xe9")


def test_nothing_found_is_said(monkeypatch, capsys):
    monkeypatch.setattr(targets, "examine", lambda _pids: ([], []))
    targets.targets.main([], standalone_mode=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "no process" in err


def test_what_only_root_may_look_at_is_one_line(monkeypatch, capsys):
    skipped = [Skipped(f"process {pid}", f"reading /proc/{pid}/maps needs CAP_SYS_PTRACE")
               for pid in range(1, 100)]  # fmt: skip
    skipped.append(Skipped("/lib/odd", "cut short"))
    monkeypatch.setattr(targets, "examine", lambda _pids: ([], skipped))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    targets.targets.main([], standalone_mode=False)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert len(lines) == 2
    assert lines[0].startswith("not looked at: 99 processes of others; run: sudo /")
    assert lines[1] == "not looked at: /lib/odd: cut short"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    targets.targets.main([], standalone_mode=False)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert len(lines) == 21
    assert lines[-1] == "not looked at: 80 more"
