# SPDX-License-Identifier: Apache-2.0
"""Whether a return probe kills a sandboxed program is found out without harm to anybody else."""

import os
from pathlib import Path

import pytest

from ecapture.kernel.seccomp import return_probe_kills


@pytest.mark.needs("root", "bpf", "uprobe_multi")
def test_the_question_has_an_answer_and_leaves_no_child():
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    children = Path("/proc/thread-self/children").read_text()
    answers = {return_probe_kills() for _ in range(3)}
    assert answers in ({True}, {False})
    assert Path("/proc/thread-self/children").read_text() == children
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
