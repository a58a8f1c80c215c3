# SPDX-License-Identifier: Apache-2.0
"""Options have the spellings of the reference, and become settings."""

import pytest
from click.testing import CliRunner

from ecapture.cli.capture import _config, make_outputs, tls
from ecapture.cli.options import scope_from
from ecapture.config import CaptureConfig, Limits, Scope
from ecapture.errors import UsageError
from ecapture.outputs import RecordOutput, TextOutput


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
    assert _config("tls", given(), None) == CaptureConfig()


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
        (["--tsize", "10"], Limits(payload=10)),
        (["--truncate", "4k"], Limits(payload=4096)),
        (["--mapsize", "1m"], Limits(ring=1 << 20)),
        (["--mapsize", "256"], Limits(ring=1 << 20)),  # pages of 4096, as in the reference
        (["--mapsize", "100000"], Limits(ring=1 << 29)),
    ],
)
def test_limits(arguments, limits):
    assert _config("tls", given(*arguments), None).limits == limits


def test_types_and_libraries_and_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = _config(
        "tls", given("-b", "2", "--libssl", "a.so", "--libssl", "/b.so"), ["curl", "x"]
    )
    assert config.types == "none"
    assert config.libraries == (f"{tmp_path}/a.so", "/b.so")
    assert config.command == ("curl", "x")


def test_outputs(tmp_path):
    for mode, kind in (("text", TextOutput), ("record", RecordOutput)):
        (output,) = make_outputs(given("-m", mode, "-w", str(tmp_path / mode)))
        assert isinstance(output, kind)
        assert (tmp_path / mode).exists()
    with pytest.raises(UsageError, match="no mode"):
        make_outputs(given("-m", "nonsense"))
