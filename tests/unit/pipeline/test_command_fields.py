# SPDX-License-Identifier: Apache-2.0
"""Filters on commands of shells."""

import pytest
from records import plaintext
from shell_records import command

from ecapture.errors import UsageError
from ecapture.pipeline.command_fields import COMMAND_FIELDS
from ecapture.pipeline.filter import Filter
from ecapture.pipeline.filter_fields import FIELDS
from ecapture.shell_events import ShellCommand


def test_fields_are_attributes_of_commands():
    for field in COMMAND_FIELDS:
        assert field.name in FIELDS
        assert field.attribute in ShellCommand.__struct_fields__


@pytest.mark.parametrize(
    "expression",
    [
        "command ~ ^ls",
        "exit_status == 0",
        "exit_status < 2 and uid == 1000",
        "ended == returned",
        "origin == typed",
        "terminal == pts/3",
        "directory ~ ^/tmp",
        "login_uid == 500",
        "duration == 1us",
        "size == 2",
        "comm == bash",
        "protocol == shell",
        "not status == 200",
    ],
)
def test_a_command_is_found_by(expression):
    assert Filter(expression).matches(command())


@pytest.mark.parametrize(
    "expression",
    ["command ~ rm", "exit_status != 0", "status == 0", "login_uid > 500", "role == server"],
)
def test_a_command_is_not_found_by(expression):
    assert not Filter(expression).matches(command())


def test_what_is_not_known_is_not_compared():
    assert not Filter("exit_status != 1").matches(command(status=None))
    assert not Filter("terminal != pts/1").matches(command(terminal=""))
    assert not Filter("command ~ .").matches(plaintext())


def test_an_ending_that_is_none_is_refused():
    with pytest.raises(UsageError):
        Filter("ended == sometimes")
