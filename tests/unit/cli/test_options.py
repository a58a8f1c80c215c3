# SPDX-License-Identifier: Apache-2.0
"""Options have the spellings of the reference, and become settings."""

import click
import pytest
from click.testing import CliRunner

from ecapture.cli import options
from ecapture.cli.capture import _config, tls
from ecapture.cli.choices import MODES, make_outputs
from ecapture.cli.options import scope_from
from ecapture.config import CaptureConfig, Limits, PacketConfig, Scope
from ecapture.errors import UsageError
from ecapture.events import Losses


def given(*arguments):
    """The values that the options of ``tls`` have."""
    context = tls.make_context("tls", list(arguments))
    return context.params


@pytest.mark.parametrize(
    "option",
    [
        "--pid", "-p", "--uid", "-u", "--comm", "--cgroup_path", "--follow", "--hex", "--output",
        "-w", "--model", "-m", "--truncate", "--tsize", "-t", "--mapsize", "--btf", "-b",
        "--logaddr", "-l", "--debug", "-d", "--libssl",
    ],
)  # fmt: skip
def test_every_spelling_is_known(option):
    shown = CliRunner().invoke(tls, ["--help"]).output
    assert option in shown.replace(",", " ").split()


def test_no_options_are_the_defaults():
    assert _config(("tls",), given(), None) == CaptureConfig()


def test_scopes():
    assert scope_from(given("-p", "1", "-p", "2", "-p", "1", "-u", "0", "--comm", "x")) == Scope(
        pids=(1, 2), uids=(0,), comms=("x",)
    )
    assert scope_from(given("--pid", "0")) == Scope()
    assert scope_from(given("--follow", "--cgroup_path", "/x")) == Scope(
        cgroups=("/x",), follow=True
    )


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        (["-t", "0"], Limits()),
        (["--tsize", "10"], Limits(payload=10, text=10)),
        (["--truncate", "4k"], Limits(payload=4096, text=4096)),
        (["--mapsize", "1m"], Limits(ring=1 << 20)),
        (["--mapsize", "256"], Limits(ring=1 << 20)),  # pages of 4096, as in the reference
        (["--mapsize", "100000"], Limits(ring=1 << 29)),
    ],
)
def test_limits(arguments, limits):
    assert _config(("tls",), given("--raw", *arguments), None).limits == limits


def test_messages_are_cut_by_their_parsers_and_not_in_the_kernel():
    assert _config(("tls",), given("-t", "10"), None).limits.payload is None


def test_types_and_libraries_and_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = _config(
        ("tls",), given("-b", "2", "--libssl", "a.so", "--libssl", "/b.so"), ["curl", "x"]
    )
    assert config.types == "none"
    assert config.libraries == (f"{tmp_path}/a.so", "/b.so")
    assert config.command == ("curl", "x")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "keylog"])
def test_every_mode_opens_its_file_before_anything_is_attached(tmp_path, mode):
    path = tmp_path / mode
    (output,) = make_outputs(given("-m", mode, "-w", str(path)), lambda _pid: "")
    output.close(Losses())
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_have_a_file_of_their_own(tmp_path):
    keys, text = tmp_path / "keys", tmp_path / "text"
    arguments = given("-k", str(keys), "-w", str(text))
    for output in make_outputs(arguments, lambda _pid: ""):
        output.close(Losses())
    assert keys.exists()
    assert text.exists()
    with pytest.raises(UsageError, match="the same place"):
        make_outputs(given("-k", str(keys), "-w", str(keys)), lambda _pid: "")


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(UsageError, match="no mode"):
        make_outputs(given("-m", "nonsense"), lambda _pid: "")


def test_packets_are_described_by_their_options():
    words = ("-m", "pcap", "-i", "lo", "-i", "lo", "-i", "eth0", "--netns", "1", "--with-dns")
    config = _config(("tls",), given(*words, "--snaplen", "1k", "tcp", "port", "443"), None)
    assert config.packets == PacketConfig(("lo", "eth0"), (1,), 1024, "tcp port 443", True)
    assert (config.plaintext, config.keys) == (False, True)


def test_any_interface_means_all_and_no_length_the_longest():
    config = _config(("tls",), given("-m", "pcap", "-i", "any", "-i", "lo"), None)
    assert config.packets == PacketConfig()
    long = _config(("tls",), given("-m", "pcap", "--snaplen", "1g"), None)
    assert long.packets == PacketConfig()


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "pcap", "--snaplen", "17"),
        ("-m", "pcap", "--snaplen", "much"),
        ("-i", "lo"),
        ("--netns", "1"),
        ("--with-dns",),
        ("tcp",),
    ],
)
def test_options_of_packets_that_cannot_be_are_refused(words):
    with pytest.raises(UsageError):
        _config(("tls",), given(*words), None)


def test_users_have_numbers_and_names():
    user = options._User()
    assert user.convert("0", None, None) == 0
    assert user.convert("-1", None, None) == -1
    assert user.convert("root", None, None) == 0
    with pytest.raises(click.UsageError, match="there is no user 'n b'"):
        user.convert("n b", None, None)
