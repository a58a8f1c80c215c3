# SPDX-License-Identifier: Apache-2.0
"""Files are set aside whole, under names that were free, and never more are deleted than asked."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecapture.errors import SinkError
from ecapture.sinks.rotation import Closing, RotatingFile, Rotation

START = 1_795_369_500.123  # 2026-11-22T17:45:00.123Z


class Clock:
    def __init__(self):
        self.now = 0.0

    def wall(self):
        return START + self.now

    def elapsed(self):
        return 1000 + self.now


@pytest.fixture
def clock():
    return Clock()


def rotating(path, clock, opening=bytes, closing=None, **rotation):
    return RotatingFile(
        str(path),
        Rotation(**rotation),
        opening=opening,
        closing=closing,
        wall=clock.wall,
        elapsed=clock.elapsed,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_by_size(tmp_path, clock):
    sink = rotating(tmp_path / "a.txt", clock, size=10)
    for piece in (b"1234", b"5678", b"90", b"abc"):
        sink.write(piece)
        clock.now += 1
    sink.close()
    assert contents(tmp_path) == {
        "a-20261122T174503.123Z.txt": b"1234567890",
        "a.txt": b"abc",
    }


def test_a_call_is_never_split(tmp_path, clock):
    sink = rotating(tmp_path / "a", clock, size=10)
    sink.write(b"x" * 4, b"y" * 4)
    sink.write(b"1" * 30, b"2" * 30)
    sink.write(b"3")
    sink.close()
    assert list(contents(tmp_path).values()) == [b"3", b"x" * 4 + b"y" * 4, b"1" * 30 + b"2" * 30]


def test_by_age(tmp_path, clock):
    sink = rotating(tmp_path / "a.b.txt", clock, seconds=60)
    sink.write(b"1")
    clock.now = 59.9
    sink.tick()
    sink.write(b"2")
    clock.now = 60
    sink.tick()
    assert contents(tmp_path) == {"a.b-20261122T174600.123Z.txt": b"12", "a.b.txt": b""}
    clock.now = 1000
    sink.tick()
    sink.write(b"3")  # empty till now, so there is nothing to set aside
    clock.now = 1061
    sink.write(b"4")
    sink.close()
    assert list(contents(tmp_path).values()) == [b"12", b"3", b"4"]


def test_without_limits_there_is_one_file(tmp_path, clock):
    sink = rotating(tmp_path / "a", clock)
    sink.write(b"1" * 1000)
    clock.now = 1e6
    sink.write(b"2")
    sink.close()
    assert contents(tmp_path) == {"a": b"1" * 1000 + b"2"}


def test_every_file_has_the_opening(tmp_path, clock):
    asked = []

    def opening():
        asked.append(clock.now)
        return b"<%d>" % len(asked)

    sink = rotating(tmp_path / "a", clock, opening, size=6)
    assert asked == []
    for piece in (b"abc", b"def", b"ghi"):
        sink.write(piece)
    sink.close()
    assert sorted(contents(tmp_path).values()) == [b"<1>abc", b"<2>def", b"<3>ghi"]


def test_a_file_that_is_set_aside_has_its_closing_and_room_for_it(tmp_path, clock):
    made = iter((b"<1>", b"<2>"))
    closing = Closing(lambda: 4, lambda: next(made))
    sink = rotating(tmp_path / "a", clock, closing=closing, size=10, seconds=60)
    for piece in (b"1234", b"56", b"7", b"8"):
        sink.write(piece)
        clock.now += 1
    assert contents(tmp_path)["a-20261122T174502.123Z"] == b"123456<1>"
    clock.now = 100
    sink.tick()
    sink.write(b"9")
    sink.close()
    assert list(contents(tmp_path).values()) == [b"9", b"123456<1>", b"78<2>"]


def test_a_file_without_content_has_the_opening_at_the_end(tmp_path, clock):
    sink = rotating(tmp_path / "a", clock, lambda: b"magic", seconds=1)
    clock.now = 10
    sink.tick()
    sink.write()
    sink.write(b"")
    sink.close()
    sink.close()
    assert contents(tmp_path) == {"a": b"magic"}


def test_nothing_is_overwritten(tmp_path, clock):
    taken = {f"a-20261122T174500.123Z{n}.txt": b"mine" for n in ("", "-1")}
    for name, content in taken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a-20261122T174500.123Z-2.txt").symlink_to("nowhere")
    sink = rotating(tmp_path / "a.txt", clock, size=1)
    sink.write(b"1")
    sink.write(b"2")
    sink.close()
    assert (tmp_path / "a-20261122T174500.123Z-3.txt").read_bytes() == b"1"
    assert {name: (tmp_path / name).read_bytes() for name in taken} == taken


def test_what_an_earlier_run_left_is_set_aside(tmp_path, clock):
    (tmp_path / "a.txt").write_bytes(b"before")
    sink = rotating(tmp_path / "a.txt", clock, size=100)
    sink.write(b"now")
    sink.close()
    assert contents(tmp_path) == {"a-20261122T174500.123Z.txt": b"before", "a.txt": b"now"}


def test_keep(tmp_path, clock):
    others = [
        "a-20200101T000000.000Z.log",
        "a-2020.txt",
        "b-20200101T000000.000Z.txt",
        "a-20200101T000000.000Z.txt.bak",
        "a-20200101T000000.000Z-x.txt",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"other")
    (tmp_path / "a-20200101T000000.000Z-1.txt").mkdir()
    (tmp_path / "a-20200101T000000.000Z.txt").write_bytes(b"of an earlier run")
    sink = rotating(tmp_path / "a.txt", clock, size=1, keep=3)
    assert (tmp_path / "a-20200101T000000.000Z.txt").exists()
    for number in range(14):
        sink.write(b"%d" % (number % 10))  # all at the same time: the number decides
    sink.close()
    left = {name: text for name, text in files(tmp_path).items() if name not in others}
    assert left == {
        "a-20261122T174500.123Z-10.txt": b"0",
        "a-20261122T174500.123Z-11.txt": b"1",
        "a-20261122T174500.123Z-12.txt": b"2",
        "a.txt": b"3",
    }
    assert all((tmp_path / name).exists() for name in others)
    assert (tmp_path / "a-20200101T000000.000Z-1.txt").is_dir()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_clock_that_is_set_back_does_not_mix_the_order(tmp_path, clock):
    sink = rotating(tmp_path / "a", clock, size=1, keep=2)
    for number in range(5):
        sink.write(b"%d" % number)
        clock.now -= 100
    sink.close()
    assert list(contents(tmp_path).values()) == [b"4", b"2", b"3"]


def test_files_are_private(tmp_path, clock):
    sink = rotating(tmp_path / "a", clock, size=1)
    sink.write(b"1")
    sink.write(b"2")
    sink.close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_file_that_vanished_is_begun_again(tmp_path, clock):
    sink = rotating(tmp_path / "a", clock, size=1)
    sink.write(b"1")
    (tmp_path / "a").unlink()
    sink.write(b"2")
    sink.close()
    assert contents(tmp_path) == {"a": b"2"}


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "nowhere"])
def test_refused(tmp_path, clock, kind):
    path = tmp_path / "a"
    if kind == "link":
        (tmp_path / "b").write_bytes(b"kept")
        path.symlink_to("b")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    else:
        path = tmp_path / "missing" / "a"
    with pytest.raises(SinkError) as caught:
        rotating(path, clock, size=1)
    assert str(path) in str(caught.value)
    if kind == "link":
        assert (tmp_path / "b").read_bytes() == b"kept"
    if kind == "pipe":
        os.close(reader)


def test_a_folder_that_vanished_is_an_error(tmp_path, clock):
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = rotating(folder / "a", clock, size=1)
    sink.write(b"1")
    (folder / "a").unlink()
    folder.rmdir()
    with pytest.raises(SinkError, match="No such file"):
        sink.write(b"2")
    sink.close()


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.integers(0, 5)), max_size=20),
    st.integers(0, 40),
    st.integers(0, 8),
)
@settings(max_examples=60, deadline=None)
def test_all_bytes_once_and_in_order(tmp_path_factory, pieces, size, seconds):
    folder, clock = tmp_path_factory.mktemp("rotation"), Clock()
    sink = rotating(folder / "z", clock, lambda: b"^", size=size, seconds=seconds)
    for piece, pause in pieces:
        sink.write(piece)
        clock.now += pause
        sink.tick()
    sink.close()
    names = sorted(
        (path.name for path in folder.iterdir() if path.name != "z"),
        key=lambda name: (name[:22], int(name[23:] or 0)),
    )
    parts = [(folder / name).read_bytes() for name in [*names, "z"]]
    assert all(part.startswith(b"^") for part in parts)
    assert b"".join(part[1:] for part in parts) == b"".join(piece for piece, _ in pieces)


def test_a_refusal_names_the_option(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "file"):
        with pytest.raises(SinkError) as refused:
            RotatingFile(str(path), Rotation(size=1), option="--pcapfile")
        assert refused.value.hint == "choose another file with --pcapfile FILE"
