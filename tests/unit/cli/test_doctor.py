# SPDX-License-Identifier: Apache-2.0
"""The doctor answers every question, and says what to do about what is missing."""

import json
from types import SimpleNamespace
from typing import get_args

import pytest
from click.testing import CliRunner

from ecapture.cli import doctor
from ecapture.cli.doctor import Finding, Verdict
from ecapture.kernel.feature import features
from ecapture.probes import probes


def test_every_finding_has_a_verdict_and_what_is_missing_has_a_remedy_or_a_cost():
    found = doctor.examine()
    subjects = {one.subject for one in found}
    assert {one.name for one in features()} < subjects
    assert {f"ecapture {name}" for name in probes()} < subjects
    for one in found:
        assert one.verdict in get_args(Verdict)
        assert one.subject
        assert one.found, one
        if one.verdict == "missing":
            assert one.remedy or one.costs, one


def test_json_has_the_same_findings():
    shown = CliRunner().invoke(doctor.doctor, ["--json"])
    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    found = json.loads(shown.stdout)
    assert [one["subject"] for one in found] == [one.subject for one in doctor.examine()]
    assert set(found[0]) == {"subject", "verdict", "found", "costs", "remedy"}


def test_json_of_odd_names(monkeypatch):
    findings = [Finding("x", "ok", "/tmp/\x9b\udcff: odd")]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    shown = CliRunner().invoke(doctor.doctor, ["--json"]).stdout
    assert "\x9b" not in shown
    assert json.loads(shown)[0]["found"] == "/tmp/\x9b\\xff: odd"


def test_the_table_names_every_subject(monkeypatch):
    findings = [
        Finding("[bold]x[/]", "ok", "/tmp/[/x]\x1b[2J"),
        Finding("y", "limited", "no", "cost", "remedy"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    shown = CliRunner().invoke(doctor.doctor, [])
    assert shown.exit_code == 0
    for text in ("[bold]x[/]", r"/tmp/[/x]\x1b[2J", "limited", "y", "cost", "remedy"):
        assert text in shown.stdout


@pytest.mark.parametrize(
    ("verdicts", "code"), [(["ok", "limited", "unknown"], 0), (["ok", "missing"], 3)]
)
def test_the_exit_code_says_whether_capturing_is_possible(monkeypatch, verdicts, code):
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("x", v, "y") for v in verdicts])
    assert CliRunner().invoke(doctor.doctor, []).exit_code == code
    assert CliRunner().invoke(doctor.doctor, ["--json"]).exit_code == code


def test_a_needed_feature_that_lacks_is_missing_and_another_is_a_limit(without):
    without("ringbuf", "bpf_loop")
    verdicts = {one.subject: one.verdict for one in doctor.examine()}
    assert verdicts["ringbuf"] == "missing"
    assert verdicts["bpf_loop"] == "limited"


def test_a_question_that_fails_is_unknown_and_the_others_are_answered(monkeypatch):
    def _mounts():
        raise OSError("odd machine")

    monkeypatch.setattr(doctor, "_mounts", _mounts)
    found = {one.subject: one for one in doctor.examine()}
    assert found["mounts"].verdict == "unknown"
    assert "odd machine" in found["mounts"].found
    assert found["build"].verdict == "ok"


@pytest.mark.parametrize(
    ("held", "verdict", "named"),
    [
        ((), "missing", ["CAP_BPF", "CAP_PERFMON"]),
        ((39,), "missing", ["CAP_PERFMON"]),
        ((38, 39), "limited", ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN"]),
        ((38, 39, 19, 2, 40), "limited", ["CAP_NET_ADMIN"]),
        ((38, 39, 19, 2, 40, 12), "ok", []),
        ((21, 19, 1, 12), "ok", []),
    ],
)
def test_rights_are_as_many_as_are_needed(monkeypatch, held, verdict, named):
    granted = SimpleNamespace(reason="")
    monkeypatch.setattr(doctor, "feature", lambda _name: granted)
    (found,) = doctor.rights_in(sum(1 << bit for bit in held))
    assert found.verdict == verdict
    for name in named:
        assert name in found.found
    assert found.found.count("CAP_") == (4 if held == (38, 39) else len(named))
    granted.reason = doctor.NOT_PERMITTED
    assert doctor.rights_in(~0)[0].verdict == "missing"
