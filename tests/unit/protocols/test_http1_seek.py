# SPDX-License-Identifier: Apache-2.0
import pytest

from ecapture.protocols.http1_seek import Seeker, starts_here

REQUEST = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nServer: a\r\n\r\n"


def seek(data, *, request, step):
    seeker = Seeker(request=request)
    for at in range(0, len(data), step):
        found = seeker.feed(data[at : at + step])
        if found is not None:
            return found + data[at + step :], seeker.skipped
    seeker.forget()
    return None, seeker.skipped


@pytest.mark.parametrize("step", [1, 2, 13, 100_000])
@pytest.mark.parametrize(
    "before",
    [b"", b"rest of a body", b'{"x": 1}', b"HTTP/1.1", b" HTTP/1.1 \r\n", b"GET /x HTTP/1.1 ",
     b"\0" * 70_000],
)  # fmt: skip
@pytest.mark.parametrize(("request_", "message"), [(True, REQUEST), (False, RESPONSE)])
def test_the_start_line_is_found_wherever_it_stands(before, request_, message, step):
    found, skipped = seek(before + message, request=request_, step=step)
    assert found == message
    assert skipped == len(before)


@pytest.mark.parametrize("step", [1, 100])
def test_other_methods_are_found_at_the_beginning_of_a_line(step):
    message = b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n"
    assert seek(message, request=True, step=step)[0] == message
    assert seek(b"x\r\n" + message, request=True, step=step)[0] == message
    assert seek(b"x" * 100 + message, request=True, step=step)[0] is None


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (True, b"see GET /x HTTP/1.1 for more\r\n"),
        (True, b"GET /x HTTP/1.1\r\nno field here\r\n"),
        (True, b"GET / HTTP/1.2\r\nA: b\r\n"),
        (True, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nA: b\r\n"),
        (False, b"HTTP/1.1 is a protocol\r\nA: b\r\n"),
        (False, b"HTTP/1.1 200 OK\r\n<html>\r\n"),
    ],
)
def test_text_about_http_is_not_believed(request_, text):
    for step in (1, 10_000):
        assert seek(text, request=request_, step=step) == (None, len(text))


def test_what_is_kept_is_bounded():
    for piece in (b"x" * 4096, b"GET / HTTP/1.1" + b"y" * 4000, b"HTTP/1.1 200 OK" * 300):
        for request in (True, False):
            seeker = Seeker(request=request)
            for _ in range(1000):
                assert seeker.feed(piece) is None
                assert len(seeker._store) < 100_000
            seeker.forget()
            assert seeker.skipped == 1000 * len(piece)


def test_a_start_line_here():
    assert starts_here(b"xx" + RESPONSE, 2, request=False)
    assert not starts_here(b"xx" + RESPONSE, 1, request=False)
    assert starts_here(REQUEST, 0, request=True)
    assert not starts_here(RESPONSE, 0, request=True)
    assert not starts_here(REQUEST[:20], 0, request=True)
