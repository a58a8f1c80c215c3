# SPDX-License-Identifier: Apache-2.0
"""What Wireshark is told when it asks, and what becomes of what it chooses."""

import os
import re
import stat
import subprocess
import sys
import threading

import pytest

from ecapture.cli import extcap
from ecapture.cli.main import main
from ecapture.errors import PermissionMissing, SinkError, UsageError

CAPTURE = ("--capture", "--extcap-interface", "ecapture", "--fifo", "-")
SENTENCE = re.compile(r"(extcap|interface|dlt|arg|value) (\{[a-z]+=[^{}]+\})+")
root = pytest.mark.needs("root")


def asked(capsys, *words):
    """What is answered, without its newlines; every line is a sentence."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for line in lines:
        assert SENTENCE.fullmatch(line), line
    return lines


def test_there_is_one_interface(capsys):
    lines = asked(capsys, "--extcap-interfaces", "--extcap-version=4.0")
    assert [line.split()[0] for line in lines] == ["extcap", "interface"]
    assert "{value=ecapture}" in lines[1]


def test_it_has_a_link_type(capsys):
    assert len(asked(capsys, "--extcap-dlts", "--extcap-interface", "ecapture")) == 1


@root
def test_a_filter_is_judged_as_it_is_typed(capsys):
    for expression in ("tcp port 443", "host 10.0.0.1 and udp", ""):
        words = ("--extcap-interface=ecapture", f"--extcap-capture-filter={expression}")
        assert asked(capsys, *words) == []
    with pytest.raises(SystemExit) as ended:
        main(["--extcap-interface=ecapture", "--extcap-capture-filter=tcp prt 443"])
    assert ended.value.code == 0
    assert "syntax error" in capsys.readouterr().out


def test_what_can_be_configured_is_what_is_understood(capsys):
    lines = asked(capsys, "--extcap-config", "--extcap-interface=ecapture")
    calls = re.findall(r"\{call=--([a-z]+)\}", "".join(lines))
    assert calls == ["keys", "ifname", "pid", "comm"]
    values = re.findall(r"\{value=([a-z]+)\}", "".join(lines))
    assert values == list(extcap._KEYS)
    assert sum("{default=true}" in line for line in lines) == 1


@root
@pytest.mark.parametrize(
    "chosen, words",
    [
        ((), ["all", "-m", "pcap", "-w", "-"]),
        (("--keys", "gotls"), ["gotls", "-m", "pcap", "-w", "-"]),
        (
            ("--ifname=lo, eth0", "--pid=7", "--comm", "curl"),
            [
                *("all", "-m", "pcap", "-w", "-"),
                *("--ifname=lo", "--ifname=eth0", "--pid=7", "--comm=curl"),
            ],
        ),
        (
            ("--extcap-capture-filter=tcp port 443",),
            ["all", "-m", "pcap", "-w", "-", "tcp port 443"],
        ),
        (("--extcap-capture-filter=-w x",), ["all", "-m", "pcap", "-w", "-", " -w x"]),
        (
            ("--comm=-w,/etc/x", "--extcap-new", "3"),
            ["all", "-m", "pcap", "-w", "-", "--comm=-w", "--comm=/etc/x"],
        ),
    ],
)
def test_choices_become_options_and_nothing_else_does(chosen, words):
    assert extcap.capture_words([*CAPTURE, *chosen]) == words


@pytest.mark.parametrize(
    "words",
    [
        ("--extcap-config", "--extcap-interface", "eth0"),
        ("--extcap-dlts",),
        ("--capture", "--extcap-interface", "ecapture"),
        (*CAPTURE, "--fifo", "/run/other"),  # whoever may run what begins so may choose nothing
        (*CAPTURE, "--fifo=-"),
        (*CAPTURE, "--keys", "everything"),
    ],
)
def test_what_cannot_be_is_refused(words):
    with pytest.raises(UsageError) as refused:
        extcap.capture_words(words)
    assert "None" not in str(refused.value)


def test_only_a_fifo_is_written_to(tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    for place in (file, tmp_path / "missing"):
        with pytest.raises(SinkError):
            extcap.capture_words([*CAPTURE[:-1], str(place)])
    assert file.read_text() == "precious"
    assert not (tmp_path / "missing").exists()


_WRITER = """
import os, sys
from ecapture.cli import extcap
extcap._write_to(sys.argv[1])
os.write(1, b"through the fifo")
"""


def test_the_fifo_becomes_standard_output(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    heard = []
    reader = threading.Thread(target=lambda: heard.append(fifo.read_bytes()), daemon=True)
    reader.start()
    subprocess.run([sys.executable, "-c", _WRITER, fifo], check=True, timeout=60)
    reader.join(60)
    assert heard == [b"through the fifo"]


_SUDO = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
[ "$2" != -l ] || exit {refused}
"""


@root
@pytest.mark.parametrize("refused", [0, 1])
@pytest.mark.parametrize("mode", [0o755, 0o775])
def test_without_rights_sudo_is_asked(tmp_path, refused, mode):
    """With a sudo that notes what it was given."""
    sudo, log, own = tmp_path / "sudo", tmp_path / "log", tmp_path / "ecapture"
    sudo.write_text(_SUDO.format(log=log, refused=refused))
    sudo.chmod(stat.S_IRWXU)
    own.touch()
    own.chmod(mode)
    code = (
        f"import os, sys; from ecapture.cli.main import main; sys.argv[0] = {str(own)!r};"
        f"os.geteuid = lambda: 54321; os.environ['PATH'] = {str(tmp_path)!r} + ':/usr/bin:/bin';"
        f"main({[*CAPTURE, '--pid=7', '--extcap-capture-filter=udp']!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    fixed = f"{own} --capture --extcap-interface ecapture --fifo -"
    words = f"{fixed} --keys=all --pid=7 --extcap-capture-filter=udp"
    calls = log.read_text().splitlines()
    assert calls[0] == f"-n -l -- {words}"
    if not refused:
        assert done.returncode == 0, done.stderr
        assert calls[1:] == [f"-n -- {words}"]
        return
    assert done.returncode == PermissionMissing.exit_code
    assert len(calls) == 1
    if mode == 0o755:
        assert f"#54321 ALL=(root) NOPASSWD: {fixed} *" in done.stderr
    else:
        assert "NOPASSWD" not in done.stderr
        assert f"{own} can be changed by others" in done.stderr
