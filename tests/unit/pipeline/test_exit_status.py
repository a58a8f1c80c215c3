# SPDX-License-Identifier: Apache-2.0
"""Only commands of one status pass, and everything that is no command."""

from records import plaintext
from shell_records import command

from ecapture.pipeline.exit_status import OnlyStatus


def test_only_one_status_passes():
    stage = OnlyStatus(1)
    events = [command(status=0), command(status=1), command(status=None), plaintext()]
    assert stage.feed(events) == [command(status=1), plaintext()]
    assert stage.flush(0) == stage.close() == []
