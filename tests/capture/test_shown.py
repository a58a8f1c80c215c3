# SPDX-License-Identifier: Apache-2.0
"""Conversations as the command line shows them: when, which, in which form, at what cost."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import servers
from harness import CAPTURES, DEADLINE, run_ecapture, wait_until
from talking import client, curl, finish

pytestmark = CAPTURES

_OPENING = re.compile(r"--- (\S+)Z pid=(\d+) .* (http|event|note)(?:/1\.1)? ?(request|response)?")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def web(certificate):
    with servers.web_server(certificate) as server:
        yield server


def nanoseconds(stamp):
    """Since 1970, of a time as header lines have it."""
    whole, _, fraction = stamp.partition(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return int(seconds) * 1_000_000_000 + int(fraction)


class Arrivals:
    """Header lines of messages on a pipe, each with its delay: from its last byte to here."""

    def __init__(self, pipe):
        self.delays = []
        self.text = []
        self._thread = threading.Thread(target=self._run, args=(pipe,), daemon=True)
        self._thread.start()

    def _run(self, pipe):
        for line in pipe:
            now = time.time_ns()
            self.text.append(line)
            found = _OPENING.match(line)
            if found:
                self.delays.append((now - nanoseconds(found[1])) / 1e9)

    def end(self):
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


def test_a_message_is_shown_when_its_last_byte_was_read(capture, certificate, web, record_property):
    with (
        client("steps", certificate, web.port, "/echo") as program,
        capture("--pid", program.pid, raw=False, output=None) as run,
    ):
        shown = Arrivals(run.process.stdout)
        for n in range(1, 21):
            program.step()
            # each before the next is asked for: nothing pushes it out
            wait_until(lambda n=n: len(shown.delays) >= 2 * n, f"{n} exchanges shown")
        program.result()
        run.finish()
        shown.end()
    assert len(shown.delays) == 42
    record_property("longest delay in seconds", max(shown.delays))
    print(f"longest delay {max(shown.delays) * 1e3:.1f} ms of {len(shown.delays)}")
    # One may meet a machine that does something else for a while.
    assert sorted(shown.delays)[len(shown.delays) // 2] < 1.0


def test_an_informational_response_is_shown_before_the_final_one_is_sent(capture, certificate, web):
    with (
        client("expecting", certificate, web.port) as program,
        capture("--pid", program.pid, raw=False, output=None) as run,
    ):
        shown = Arrivals(run.process.stdout)
        program.step()
        wait_until(lambda: "HTTP/1.1 100 Continue\n" in shown.text, "the informational response")
        assert len(shown.delays) == 1
        assert program.result() == 1000
        wait_until(lambda: "HTTP/1.1 200 OK\n" in shown.text, "the final response")
        run.finish()
        shown.end()
    starts = [line for line in shown.text if re.match(r"POST |HTTP/1\.1 ", line)]
    # The request is complete after the response that asks for its content.
    assert starts == ["HTTP/1.1 100 Continue\n", "POST /size HTTP/1.1\n", "HTTP/1.1 200 OK\n"]


def test_what_is_complete_at_the_end_is_shown_and_the_rest_as_unfinished(capture, certificate, web):
    with client("steps", certificate, web.port, "/coded/identity/100") as program:
        with capture("--pid", program.pid, raw=False) as run:
            for _ in range(10):
                program.step()
            run.finish()
        program.result()
    text = Path(run.path).read_text()
    assert len(re.findall(r"^--- .* http/1\.1 request length=0$", text, re.MULTILINE)) == 10
    assert len(re.findall(r"^--- .* http/1\.1 response length=\d+$", text, re.MULTILINE)) == 10
    assert text.count("line 99 of 100\n") == 10
    for n in range(10):
        assert f"GET /coded/identity/100?{n} HTTP/1.1\n" in text

    with client("half", certificate, web.port) as program:
        with capture("--pid", program.pid, raw=False) as run:
            program.step()
            run.finish()
        program.result()
    text = Path(run.path).read_text()
    assert re.search(
        r"^--- .* http/1\.1 request length=1000 \[unfinished.*\]$", text, re.MULTILINE
    ), text
    assert "POST /size HTTP/1.1\n" in text


@pytest.mark.needs("program:curl")
def test_brief_is_one_line_per_exchange(capture, certificate, web):
    with capture("--comm", "curl", "--brief", raw=False) as run:
        program = curl(certificate, web.port, "/echo", "-d", "four", "/status/404", "-d", "x")
        finish(program)
        run.finish()
    lines = [s for s in Path(run.path).read_text().splitlines() if f"pid={program.pid} " in s]
    place = f"localhost:{web.port}"
    assert len(lines) == 2
    wanted = (
        rf"\S+Z pid=\d+ comm=curl client POST {place}/echo 200 request=\d+ response=\d+ \d+\.\d+ms"
    )
    assert re.fullmatch(wanted, lines[0]), lines[0]
    assert f" POST {place}/status/404 405 " in lines[1]


@pytest.mark.needs("program:curl")
def test_a_filter_shows_what_matches(capture, certificate, web):
    words = ["/echo", "/status/404", "/status/204", "/status/404"]
    with capture("--comm", "curl", "--brief", "--filter", "status == 404", raw=False) as run:
        program = curl(certificate, web.port, *words)
        finish(program)
        run.finish()
    lines = [s for s in Path(run.path).read_text().splitlines() if f"pid={program.pid} " in s]
    assert len(lines) == 2
    assert all(f"GET localhost:{web.port}/status/404 404 " in line for line in lines)


def test_a_malformed_filter_is_refused_at_its_place():
    expression = 'status >= 500 and hosst ~ "x"'
    done = run_ecapture("tls", "--filter", expression)
    assert done.returncode == 2
    said = done.stderr.decode().splitlines()
    at = next(n for n, line in enumerate(said) if expression in line)
    assert said[at + 1].index("^") == said[at].index("hosst")
    assert b"Traceback" not in done.stderr
    assert not done.stdout


def memory(pid, field):
    """A size in bytes of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def test_memory_is_flat_while_one_connection_moves_much(capture, certificate, web, record_property):
    # Scaled down from gigabytes; what grows by a hundredth of what passes would fail.
    mebibytes = 400
    with (
        client("upload", certificate, web.port, mebibytes) as program,
        capture("--pid", program.pid, raw=False) as run,
    ):
        first = memory(run.process.pid, "VmRSS")
        assert program.result() == mebibytes << 20
        wait_until(lambda: "http/1.1 response" in Path(run.path).read_text(), "the answer")
        most = memory(run.process.pid, "VmHWM")
        run.finish()
    record_property("growth in bytes", most - first)
    print(f"grew by {(most - first) / 1e6:.1f} MB from {first / 1e6:.1f} MB")
    # The buffer of 16 MiB is mapped twice and counts as it is touched; a body is kept up to 1 MiB.
    assert most - first < 64 << 20
    text = Path(run.path).read_text()
    assert f"http/1.1 request length={mebibytes << 20}" in text
    assert len(text) < 8 << 20
