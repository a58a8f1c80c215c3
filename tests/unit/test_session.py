# SPDX-License-Identifier: Apache-2.0
"""The pump: records go to outputs as they came, events as understood, sums to the summary."""

from types import SimpleNamespace

import pytest
from records import CONVERSATION, ended, exit_record, plaintext_record, recording

from ecapture import session
from ecapture.errors import SinkError, TargetNotFound
from ecapture.events import Gap, InterfaceCounts, Losses, Packets, Plaintext
from ecapture.kernel.recording import Metadata
from ecapture.session import Capture, Replay, pump, run

BATCHES = [
    plaintext_record(b"hello"),
    plaintext_record(b"later", stream_offset=8) + plaintext_record(kind=9),
]


class Source:
    """Batches from a list."""

    def __init__(self, batches, losses=None, frames=()):
        self._frames = list(frames)
        self.metadata = Metadata(0)
        self.losses = Losses()
        self.malformed = 0
        self._batches = batches
        self._losses = losses or Losses()
        self.closed = False
        self.shown = []  # what an output was called with by now
        self.forgotten = []

    def batches(self):
        try:
            yield from self._batches
        finally:
            self.closed = True
            self.losses = self._losses

    def frames(self):
        return self._frames.pop(0) if self._frames else []

    def container_of(self, _pid):
        return ""

    def forget(self, pid):
        self.forgotten.append((pid, len(self.shown)))


class Output:
    """Keeps what it is given; fails at one call if told so."""

    def __init__(self, failing=""):
        self.calls = []
        self._failing = failing

    def _note(self, name, what):
        self.calls.append((name, what))
        if name == self._failing:
            raise SinkError(destination="x", cause="full")

    def opening(self, metadata):
        self._note("opening", metadata)

    def records(self, batch):
        self._note("records", batch)

    def events(self, events):
        self._note("events", list(events))

    def close(self, losses):
        self._note("close", losses)


class Ending:
    """A stage that holds everything back until the end."""

    def __init__(self):
        self.held = []
        self.flushed = 0

    def feed(self, events):
        self.held += events
        return []

    def flush(self, _now_ns):
        self.flushed += 1
        return []

    def close(self):
        return [*self.held, ended()]


def test_packets_come_behind_the_secrets_of_their_batch_and_are_counted():
    counts = InterfaceCounts(9, 1, 0, 7, 2, 0, 0)
    frames = [[Packets(5, b"block")], [counts]]
    output = Output()
    summary = run(Source([plaintext_record(b"hello"), b""], frames=frames), [output])
    told = [[type(event) for event in what] for name, what in output.calls if name == "events"]
    assert told == [[Plaintext, Packets], [InterfaceCounts]]
    assert (summary.packets, summary.packets_dropped, summary.lost) == (5, 2, 2)


def test_a_process_that_ended_is_forgotten_once_all_of_it_was_shown():
    source, output = Source([plaintext_record(b"hello") + exit_record(), b""]), Output()
    source.shown = output.calls
    run(source, [output])
    names = [name for name, _what in output.calls]
    assert names[:3] == ["opening", "records", "events"]
    (kinds,) = [[type(event) for event in what] for name, what in output.calls if name == "events"]
    assert kinds[0] is Plaintext
    assert source.forgotten == [(100, 3)]


def test_outputs_get_records_then_events_and_the_losses_last():
    output = Output()
    losses = Losses(ring_full_records=2, ring_full_bytes=50, table_full_records=1)
    summary = run(Source(BATCHES, losses), [output])
    names = [name for name, _what in output.calls]
    assert names == ["opening", "records", "events", "records", "events", "close"]
    assert [what for name, what in output.calls if name == "records"] == BATCHES
    events = [event for name, what in output.calls if name == "events" for event in what]
    assert [type(event) for event in events] == [Plaintext, Gap, Plaintext]
    assert output.calls[-1] == ("close", losses)
    assert (summary.events, summary.bytes, summary.flows) == (2, 10, 1)
    assert (summary.lost, summary.lost_bytes, summary.malformed) == (2 + 1 + 1, 50, 1)


def test_what_stages_hold_back_comes_at_the_end():
    output = Output()
    run(Source(BATCHES), [output], [Ending()])
    (events,) = [what for name, what in output.calls if name == "events"]
    assert [type(event) for event in events[:-1]] == [Plaintext, Gap, Plaintext]
    assert events[-1].conversation == CONVERSATION


def test_an_empty_batch_says_that_time_has_passed():
    stage = Ending()
    run(Source([b"", b""]), [], [stage])
    assert stage.flushed == 2


@pytest.mark.parametrize("failing", ["records", "events", "close"])
def test_a_failing_output_ends_the_run_and_the_others_are_closed(failing):
    source, bad, good = Source(BATCHES), Output(failing), Output()
    with pytest.raises(SinkError) as caught:
        run(source, [bad, good])
    assert source.closed
    assert [name for name, _what in good.calls][-1] == "close"
    assert [name for name, _what in bad.calls].count("close") == 1
    assert caught.value.fields["summary"].events >= (failing != "records")


def test_an_output_that_cannot_begin_is_told_with_the_summary():
    good, bad, other = Output(), Output("opening"), Output()
    with pytest.raises(SinkError) as caught:
        run(Source(BATCHES), [good, bad, other])
    assert caught.value.fields["summary"].events == 0
    assert [name for name, _what in good.calls] == ["opening", "close"]
    assert [name for name, _what in bad.calls] == ["opening"]
    assert other.calls == []  # and its file is as it was


def test_giving_up_closes_the_source():
    source = Source(BATCHES)
    events = pump(source, run(Source([]), []))
    next(events)
    events.close()
    assert source.closed


def test_a_replay_is_a_source_that_needs_no_rights(tmp_path):
    path = tmp_path / "recording"
    path.write_bytes(recording(*BATCHES))
    with Replay(str(path)) as replay:
        events = list(replay)
        assert [type(event) for event in events] == [Plaintext, Gap, Plaintext]
        assert replay.summary.events == 2
        assert replay.summary.malformed == 1
    with pytest.raises(TargetNotFound):
        Replay(str(tmp_path / "nothing"))


def test_a_capture_that_was_not_entered_refuses():
    capture = Capture()
    with pytest.raises(ValueError, match="not entered"):
        capture.ready()
    with pytest.raises(ValueError, match="not entered"):
        next(capture.batches())
    capture.close()
    capture.close()


def test_a_container_is_asked_anew_of_a_number_that_is_used_anew(monkeypatch):
    ids = iter("ab")

    def told(_pid):
        return SimpleNamespace(container=SimpleNamespace(id=next(ids)))

    monkeypatch.setattr(session, "read_process", told)
    capture = session.Capture()
    assert [capture.container_of(1), capture.container_of(1)] == ["a", "a"]
    capture.forget(1)
    capture.forget(2)
    assert capture.container_of(1) == "b"
