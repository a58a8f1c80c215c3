# SPDX-License-Identifier: Apache-2.0
"""The command line finds its subcommand, and errors become one line, advice and an exit code."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ecapture
from ecapture.cli import capture
from ecapture.cli.main import _COMMANDS, _ordered, cli, main
from ecapture.errors import ECaptureError, PermissionMissing, SinkError, UsageError
from ecapture.version import version


def run(*arguments):
    """The exit code of one run."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.fixture
def captured(monkeypatch):
    """Return what the capturing subcommands were called with, instead of capturing."""
    calls = []

    def note(probes, given, command):
        calls.append((probes, given, command))
        return 0

    monkeypatch.setattr(capture, "capture", note)
    return calls


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["tls"], ["tls"]),
        (["tls", "-p", "1"], ["tls", "-p", "1"]),
        (["-d", "tls", "-p", "1"], ["tls", "-d", "-p", "1"]),
        (["-p", "1", "tls"], ["tls", "-p", "1"]),
        (["-p1", "tls"], ["tls", "-p1"]),
        (["--pid=1", "--hex", "tls", "-d"], ["tls", "--pid=1", "--hex", "-d"]),
        (["-w", "tls", "tls"], ["tls", "-w", "tls"]),
        (["--help"], ["--help"]),
        (["--help", "tls"], ["tls", "--help"]),
        (["-"], ["-"]),
        ([], []),
    ],
)
def test_options_may_stand_before_the_subcommand(given, ordered):
    assert _ordered(given) == ordered


@pytest.mark.parametrize("name", ["tls", "openssl", "open", "tl"])
def test_names_aliases_and_prefixes(captured, name):
    assert run(name) == 0
    assert [probes for probes, _given, _command in captured] == [("tls",)]


@pytest.mark.parametrize("name", ["t", "nonsense", ""])
def test_unknown_and_ambiguous_names_are_refused(captured, capsys, name):
    assert run(name) == 2
    assert not captured
    assert "No such command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [("tsl", "tls"), ("postgress", "postgres"), ("t", "tls or targets or gotls"), ("curl", "")],
)
def test_what_was_meant_is_guessed(captured, capsys, name, meant):
    assert run(name) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert meant in last
    assert ("Did you mean" in last) == bool(meant)


@pytest.mark.parametrize("name", ["bash", "zsh", "sh", "fish", "mysqld", "postgres"])
@pytest.mark.parametrize(
    "words", [["-m", "har"], ["-m", "pcap"], ["-m", "keylog"], ["-k", "x"], ["-i", "lo"],
              ["--pcapfile", "x"], ["--netns", "1"], ["--snaplen", "99"], ["--with-dns"]],
    ids=" ".join,
)  # fmt: skip
def test_what_is_about_connections_is_refused_where_there_are_none(captured, capsys, name, words):
    assert run(name, *words) == 2
    assert not captured
    assert f"ecapture: {' '.join(words[:2]) if words[0] == '-m' else words[0]}: is about" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["gnutls", "gotls", "nss", "rustls", "all"])
def test_what_shows_messages_offers_what_messages_have(capsys, name):
    def options(of):
        assert run(of, "--help") == 0
        return set(re.findall(r"^  (?:-\w, )?(--\w+)", capsys.readouterr().out, re.MULTILINE))

    assert options("tls") - options(name) <= {"--libssl"}


@pytest.mark.parametrize("name", ["bash", "zsh", "sh", "fish", "mysqld", "postgres"])
def test_what_is_about_connections_is_not_in_the_help_where_there_are_none(capsys, name):
    assert run(name, "--help") == 0
    shown = capsys.readouterr().out
    assert "text (default), jsonl or record." in shown
    for option in ("--keylogfile", "--pcapfile", "--ifname", "--netns", "--snaplen", "--with-dns"):
        assert option not in shown


def test_options_and_the_command_arrive(captured):
    assert run("-d", "tls", "-p", "1", "-p", "2", "--hex", "--", "curl", "--", "-p", "9") == 0
    ((_probes, given, command),) = captured
    assert given["debug"]
    assert given["hex"]
    assert given["pids"] == (1, 2)
    assert command == ["curl", "--", "-p", "9"]


def test_without_dashes_there_is_no_command(captured):
    run("tls")
    assert captured[0][2] is None
    run("tls", "--")
    assert captured[1][2] == []


def test_an_empty_command_is_refused(capsys):
    assert run("tls", "--") == 2
    assert "no command follows" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("doctor",), ("target",), ("replay", "recording")])
def test_a_command_is_refused_where_none_is_started(capsys, words):
    assert run(*words, "--", "curl", "https://localhost/") == 2
    assert "starts no command: leave out `--`" in capsys.readouterr().err


def test_a_packet_filter_is_refused_with_advice(capsys):
    assert run("tls", "port", "443") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "port 443" in shown.err
    assert "after --" in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["tls", "-m", "nonsense"],
        ["tls", "--mapsize", "x"],
        ["tls", "--mapsize", "²"],
        ["tls", "--mapsize", "9" * 5000],
        ["tls", "--mapsize", "1"],
        ["tls", "--truncate", "many"],
        ["tls", "--truncate", "999999999999999g"],
        ["tls", "--no-such-option"],
        ["tls", "--pid", "x"],
        ["tls", "--uid", "-1"],
        ["tls", "--uid", str(1 << 32)],
        ["tls", "--btf", "3"],
        ["tls", "--comm", "a" * 16],
        ["replay"],
        ["doctor", "--no-such-option"],
    ],
)
def test_bad_usage_exits_with_2_and_says_why(capsys, arguments):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip()
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    "arguments",
    [["tls", "--pid", "99999999999"], ["tls", "--pid", "-1"], ["replay", "/no/such"]],
)
def test_a_missing_target_exits_with_4(capsys, arguments):
    assert run(*arguments) == 4
    assert "not found" in capsys.readouterr().err


def test_an_unwritable_output_exits_with_6(capsys, tmp_path):
    assert run("tls", "-w", str(tmp_path)) == 6
    assert "is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UsageError(option="--x", problem="is wrong", hint="do y"), 2, ["--x: is wrong", "  do y"]),
        (SinkError(destination="f", cause="full"), 6, ["ecapture: f: full"]),
        (ECaptureError(message="plain"), 1, ["ecapture: plain"]),
        (PermissionMissing(capability="root", needed_for="it"), 3, ["it needs root", "run: sudo "]),
        (KeyboardInterrupt(), 130, []),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code, shown):
    def fail(*_arguments):
        raise error

    monkeypatch.setattr(capture, "capture", fail)
    assert run("tls") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert all(text in err for text in shown)


def test_the_status_of_the_command_is_ours(monkeypatch):
    monkeypatch.setattr(capture, "capture", lambda *_arguments: 7)
    assert run("tls", "--", "x") == 7


def test_without_arguments_there_is_help_on_standard_error(capsys):
    assert run() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Commands:" in err


def test_the_version_is_told(capsys):
    assert run("--version") == 0
    assert version() in capsys.readouterr().out


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_subcommand_has_help(capsys, name):
    assert run(name, "--help") == 0
    assert f"ecapture {name}" in capsys.readouterr().out


def test_the_list_of_commands_is_what_can_be_run():
    for name, (_module, _attribute, text) in _COMMANDS.items():
        command = cli.get_command(None, name)
        assert command is not None
        assert text.endswith(".")


def test_help_is_quick_and_loads_nothing_heavy():
    program = """
import sys
from ecapture.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print("loaded:", *sorted(sys.modules))
"""
    began = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    took = time.monotonic() - began
    loaded = set(shown.split("loaded:")[1].split())
    assert "ecapture.cli.main" in loaded
    for heavy in ("rich", "msgspec", "asyncio", "ecapture.session", "ecapture.kernel", "sqlite3"):
        assert heavy not in loaded
    assert took < 10  # 0.15 s on a quiet machine; this one may be emulated


def test_an_interrupt_while_it_is_loaded_is_no_traceback(tmp_path):
    """A module that stands for the command line interrupts itself where that would be loaded."""
    package = tmp_path / "ecapture"
    (package / "cli").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli" / "__init__.py").touch()
    (package / "cli" / "main.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: signal.pause()\n"
    )
    own = Path(ecapture.__file__).parent / "__main__.py"
    (package / "__main__.py").write_bytes(own.read_bytes())
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ecapture"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize(
    "words",
    [["targets", "--json"], ["targets"], ["doctor"], ["doctor", "--json"], ["--help"]],
    ids=" ".join,
)
def test_what_cannot_be_printed_is_no_traceback(words):
    command = [sys.executable, "-P", "-m", "ecapture", *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 6
    assert b"ecapture: standard output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run(command, stdout=writable, stderr=subprocess.PIPE, check=False)
    os.close(writable)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"rror" not in done.stderr


def test_help_is_a_word_too(capsys):
    assert run("help") == 0
    assert "Commands:" in capsys.readouterr().out
    assert run("help", "zsh") == 0
    assert "--zsh FILE" in capsys.readouterr().out


def test_targets_of_a_process_that_is_not_there(capsys):
    assert run("targets", "-p", "99999999999") == 4
    assert "process 99999999999: not found" in capsys.readouterr().err
