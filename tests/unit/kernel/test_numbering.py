# SPDX-License-Identifier: Apache-2.0
"""What needs the host's process ids is refused where there are others, and nothing else is."""

import pytest

from ecapture.config import CaptureConfig, PacketConfig, Scope
from ecapture.errors import HostError
from ecapture.kernel import numbering


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Let the namespace be a file, which has not the number of the first one."""
    monkeypatch.setattr(numbering, "_OWN", tmp_path / "pid")
    numbering.are_of_host.cache_clear()
    yield tmp_path / "pid"
    numbering.are_of_host.cache_clear()


def test_without_proc_nothing_can_be_said(own):
    with pytest.raises(HostError, match="/proc is not mounted") as caught:
        numbering.are_of_host()
    assert "mount" in caught.value.hint
    own.touch()
    assert not numbering.are_of_host()


@pytest.mark.parametrize(
    ("config", "needing"),
    [
        (CaptureConfig(command=("true",)), "-- command"),
        (CaptureConfig(scope=Scope(pids=(1,), follow=True)), "--follow"),
        (CaptureConfig(scope=Scope(pids=(1,)), packets=PacketConfig()), "--pid with packets"),
        (CaptureConfig(), ""),
        (CaptureConfig(scope=Scope(pids=(1,))), ""),
        (CaptureConfig(scope=Scope(uids=(0,)), packets=PacketConfig()), ""),
    ],
)
def test_what_needs_the_numbers_of_the_host(own, config, needing):
    own.touch()
    if not needing:
        numbering.check(config)
        return
    with pytest.raises(HostError, match=f"^{needing} needs") as caught:
        numbering.check(config)
    assert "--pid=host" in caught.value.hint
