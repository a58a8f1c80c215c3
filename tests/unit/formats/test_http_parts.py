# SPDX-License-Identifier: Apache-2.0
"""Hosts, URLs, queries, cookies and forms, told from heads."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import CONNECTION, http, request_head, response_head

from ecapture.formats.http_parts import (
    LIMIT,
    Cookie,
    Parameter,
    cookies_of,
    form_of,
    host_of,
    pairs_of,
    path_of,
    query_of,
    set_cookies_of,
    url_of,
)


@pytest.mark.parametrize(
    "changes, host, path, url",
    [
        ({}, "example.com", "/path?q=1", "https://example.com/path?q=1"),
        ({"authority": "h:8443", "fields": ()}, "h:8443", "/path?q=1", "https://h:8443/path?q=1"),
        ({"target": "http://other/x?y", "fields": ()}, "other", "/x?y", "http://other/x?y"),
        ({"target": "http://other?y", "fields": ()}, "other", "?y", "http://other/?y"),
        ({"target": "HTTP://other/x"}, "other", "/x", "http://other/x"),
        ({"target": "ws://other/x"}, "other", "/x", "https://other/x"),
        # as bytes: in UTF-8, and in latin-1, which is another path
        ({"target": "/\xc3\xa9"}, "example.com", "/\xc3\xa9", "https://example.com/%C3%A9"),
        ({"target": "/\xe9"}, "example.com", "/\xe9", "https://example.com/%E9"),
        ({"target": "*", "method": "OPTIONS"}, "example.com", "*", "https://example.com/*"),
        ({"target": "a:443", "method": "CONNECT"}, "a:443", "", "https://a:443/"),
        ({"target": "", "authority": "a:22", "method": "CONNECT"}, "a:22", "", "https://a:22/"),
        ({"target": "/s?t", "authority": "a", "method": "CONNECT"}, "a", "/s?t", "https://a/s?t"),
        ({"target": "/a://b"}, "example.com", "/a://b", "https://example.com/a://b"),
        ({"scheme": "http"}, "example.com", "/path?q=1", "http://example.com/path?q=1"),
        ({"fields": ()}, "", "/path?q=1", "https://10.0.0.2:443/path?q=1"),
        ({"authority": "a:65536"}, "a:65536", "/path?q=1", "https://10.0.0.2:443/path?q=1"),
        ({"authority": "[::1]:1"}, "[::1]:1", "/path?q=1", "https://[::1]:1/path?q=1"),
        ({"authority": "a b"}, "a b", "/path?q=1", "https://10.0.0.2:443/path?q=1"),
        ({"target": '/é "%zz%41'}, "example.com", '/é "%zz%41', "https://example.com/%E9%20%22%25zz%41"),
    ],
)  # fmt: skip
def test_requests(changes, host: str, path: str, url: str) -> None:
    head = request_head(**changes)
    assert host_of(head) == host
    assert path_of(head) == path
    assert url_of(head, CONNECTION, server=False) == url


def test_a_host_nobody_knows() -> None:
    head = request_head(fields=(), target="/")
    assert url_of(head, None, server=False) == "https://unknown.invalid/"
    assert url_of(head, CONNECTION, server=True) == "https://10.0.0.1:40000/"


def test_query() -> None:
    assert query_of("/p?a=1&b=%C3%A9+x&c&&d==#e") == [
        ("a", "1"),
        ("b", "é x"),
        ("c", ""),
        ("d", "="),
    ]
    assert query_of("/p") == []
    assert len(pairs_of("a&" * 5000)) == LIMIT


def test_cookies() -> None:
    head = request_head(fields=(("cookie", "a=1; b=x=y; ;c"), ("COOKIE", "d=\xc3\xa9")))
    assert cookies_of(head) == [
        Cookie("a", "1"),
        Cookie("b", "x=y"),
        Cookie("c", ""),
        Cookie("d", "é"),
    ]
    many = request_head(fields=(("Cookie", "a=1;" * 700), ("Cookie", "a=1;" * 700)))
    assert len(cookies_of(many)) == LIMIT


def test_set_cookies() -> None:
    text = (
        "id=a3; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/; Domain=x.org; Secure; HttpOnly;"
        " SameSite=Lax"
    )
    head = response_head(fields=(("Set-Cookie", text), ("set-cookie", "b")))
    assert set_cookies_of(head) == [
        Cookie("id", "a3", "/", "x.org", "2026-10-21T07:28:00Z", True, True, "Lax"),
        Cookie("b", ""),
    ]


@pytest.mark.parametrize("date", ["x", "0", "Wed, 99 Oct 2026 07:28:00 GMT", "9" * 50, "9" * 500])
def test_dates_that_are_none(date: str) -> None:
    head = response_head(fields=(("Set-Cookie", f"a=b; expires={date}"),))
    assert set_cookies_of(head) == [Cookie("a", "b")]


def form(content_type: str, body: bytes) -> list[Parameter]:
    return form_of(
        http("request", request_head(fields=(("Content-Type", content_type),)), body=body)
    )


def test_forms() -> None:
    urlencoded = "application/x-www-form-urlencoded; charset=utf-8"
    assert form(urlencoded, b"a=1&b=+") == [Parameter("a", "1"), Parameter("b", " ")]
    assert form("text/plain", b"a=1") == []


MULTIPART = (
    b'--B\r\nContent-Disposition: form-data; name="a \\"b"\r\n\r\n1\r\n2\r\n'
    b"--B\r\ncontent-disposition: form-data; name=f; filename=x.png\r\n"
    b"Content-Type: image/png\r\n\r\n\x89PNG\r\n"
    b'--B\r\nContent-Disposition: form-data; name="g"\r\n\r\n\xff\r\n'
    b"--B--\r\nrest"
)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=B", 'Multipart/Form-Data;boundary="B"']
)
def test_multipart_forms(content_type: str) -> None:
    assert form(content_type, MULTIPART) == [
        Parameter('a "b', "1\r\n2"),
        Parameter("f", None, "x.png", "image/png"),
        Parameter("g", None),
    ]


def test_multipart_forms_that_are_none() -> None:
    assert form("multipart/form-data", MULTIPART) == []
    assert form("multipart/form-data; boundary=C", MULTIPART) == []
    assert len(form("multipart/form-data; boundary=B", b"--B\r\n\r\n\r\n" * 3000)) == LIMIT


LATIN = st.text(st.characters(max_codepoint=255), max_size=40)


@settings(deadline=None)
@given(LATIN, LATIN, LATIN, st.binary(max_size=80))
def test_nothing_raises_and_urls_are_urls(target: str, host: str, value: str, body: bytes) -> None:
    fields = (("Host", host), ("Cookie", value), ("Set-Cookie", f"a=b;expires={value}"))
    head = request_head(target=target, fields=fields)
    url = url_of(head, CONNECTION, server=False)
    assert urlsplit(url).hostname
    assert re.fullmatch(r"https://[!-~]+", url)
    assert re.search(r"%(?![0-9A-Fa-f]{2})", url.partition("://")[2].partition("/")[2]) is None
    assert all(cookie.name or cookie.value or "=" in value for cookie in cookies_of(head))
    assert len(set_cookies_of(head)) == 1
    query_of(target)
    form(f"multipart/form-data; boundary={value}", body)
    form("application/x-www-form-urlencoded", body)
