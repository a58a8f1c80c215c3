# SPDX-License-Identifier: Apache-2.0
"""Every question has three answers, is asked once, and can be masked."""

import os
import subprocess
import sys

import pytest

from ecapture.kernel.feature import Answer, Feature, feature, features, machine


def test_every_feature_answers_and_says_what_is_missing_without_it():
    found = features()
    assert len({f.name for f in found}) == len(found) >= 10
    for one in found:
        assert isinstance(one.answer, Answer)
        assert one.since, one.name
        assert one.costs, one.name
        if one.answer is not Answer.YES:
            assert one.reason, one.name


def test_an_answer_is_kept():
    assert feature("btf") is feature("btf")


def test_a_mask_makes_it_no(without):
    without("btf", "bpf_loop")
    assert feature("btf").answer is Answer.NO
    assert "ECAPTURE_WITHOUT" in feature("bpf_loop").reason


def test_without_types_there_are_no_typed_tracepoints(without):
    without("btf")
    assert feature("tp_btf:sock_send_length").answer is Answer.NO


def test_an_unknown_name_is_our_mistake():
    with pytest.raises(KeyError):
        feature("no such feature")


@pytest.mark.parametrize("answer", Answer)
def test_only_yes_is_true(answer):
    assert bool(Feature("x", answer, "1", "", "")) == (answer is Answer.YES)


def test_who_may_not_ask_does_not_know():
    """Without rights the answers about programs are neither yes nor no."""
    program = """
import os
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
from ecapture.kernel.feature import feature
for name in ("bpf", "attach_cookie", "bpf_loop", "uprobe_multi"):
    print(feature(name).answer, feature(name).reason, sep=": ")
"""
    if not os.access(sys.executable, os.X_OK):
        pytest.skip("the interpreter is not for everybody")
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if "ModuleNotFoundError" in shown.stderr or "PermissionError" in shown.stderr:
        pytest.skip("the package is not readable for everybody")
    assert shown.stdout.splitlines() == ["unknown: not permitted to ask"] * 4


def test_the_machine_has_the_name_of_the_objects():
    assert machine() in ("x86_64", "aarch64")
