# SPDX-License-Identifier: Apache-2.0
"""Hooks as the kernel programs read them: byte by byte as struct ec_hook of wire.h stands."""

import pytest

from ecapture import plan


@pytest.mark.parametrize(
    ("hook", "row"),
    [
        # direction, handle, buffer, length, length kind, flags, shape, padding
        (plan.read("r"), (0, 0, 1, 2, 0, 0, 0, 0)),
        (plan.write("w"), (1, 0, 1, 2, 0, 0, 0, 0)),
        (plan.read("rx", length=3, pointed=True), (0, 0, 1, 3, 1, 2, 0, 0)),
        (plan.write("wx", length=3, pointed=True), (1, 0, 1, 3, 1, 2, 0, 0)),
        (plan.read("rw", wide=True), (0, 0, 1, 2, 2, 2, 0, 0)),
        (plan.write("ww", wide=True), (1, 0, 1, 2, 2, 2, 0, 0)),
        (plan.opened("o", span=1), (0, 0, 1, 1, 4, 0, 0, 0)),
        (plan.send_file("s"), (1, 0, 0, 0, 2, 1, 0, 0)),
        (plan.descriptor("d"), (0, 0, 0, 0, 0, 0, 1, 0)),
        (plan.end("e"), (0, 0, 0, 0, 0, 0, 2, 0)),
        (plan.end("c", keeps_handle=True), (0, 0, 0, 0, 0, 4, 2, 0)),
    ],
)
def test_rows(hook, row):
    assert hook.row() == bytes(row)


def test_a_hook_is_a_value():
    assert plan.read("x") == plan.read("x")
    assert len({plan.read("x"), plan.read("x"), plan.write("x")}) == 2
    with pytest.raises(AttributeError):
        plan.read("x").symbol = "y"
