# SPDX-License-Identifier: Apache-2.0
"""Stages behind one another: what one lets go passes through the next."""

from records import plaintext

from ecapture.pipeline.stage import Chain


class Holding:
    """Lets everything go one step late, and says by whom in the name of the command."""

    def __init__(self, name):
        self.name = name
        self.held = []

    def feed(self, events):
        self.held, out = events, self.held
        return [plaintext(e.payload, comm=e.comm + self.name) for e in out]

    def flush(self, now_ns):
        return [plaintext(b"due", comm=f"{self.name}{now_ns}")]

    def close(self):
        return self.feed([])


def shown(events):
    return [(e.payload, e.comm) for e in events]


def test_an_empty_chain_changes_nothing():
    events = [plaintext()]
    chain = Chain(())
    assert chain.feed(events) is events
    assert chain.flush(1) == []
    assert chain.close() == []


def test_stages_are_fed_in_order():
    chain = Chain((Holding("a"), Holding("b")))
    assert chain.feed([plaintext(b"1", comm="")]) == []
    assert chain.feed([plaintext(b"2", comm="")]) == []
    assert shown(chain.feed([])) == [(b"1", "ab")]


def test_what_is_flushed_early_passes_the_later_stages():
    late = Holding("b")
    chain = Chain((Holding("a"), late))
    assert shown(chain.flush(5)) == [(b"due", "b5")]
    assert shown(late.held) == [(b"due", "a5")]


def test_closing_lets_everything_go_in_order():
    chain = Chain((Holding("a"), Holding("b")))
    chain.feed([plaintext(b"1", comm="")])
    assert shown(chain.close()) == [(b"1", "ab")]
