# SPDX-License-Identifier: Apache-2.0
"""What HTTP heads and forms mean: host, URL, query, cookies, parameters.

Strategy: split what is there and decode what can be decoded; whatever is malformed is shown as far
as it goes. Nothing is raised. Bounds: ``LIMIT`` items of each kind, linear time.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from ecapture.events import Connection, HttpMessage
from ecapture.formats.content import field_text
from ecapture.formats.words import endpoint
from ecapture.protocols.messages import Head

LIMIT: Final = 1000
"""How many query items, cookies or parameters of one message are told apart."""

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]")
# All that may stand in a URI (RFC 3986, 2) beside letters and digits; the rest is encoded.
_URI_SAFE: Final = "!#$%&'()*+,/:;=?@[]~"
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Parameter(NamedTuple):
    """A part of a form. ``value`` is None where it is a file or not text."""

    name: str
    value: str | None
    file_name: str = ""
    content_type: str = ""


class Cookie(NamedTuple):
    """A cookie, and what Set-Cookie says of it. ``expires`` is RFC 3339, or empty."""

    name: str
    value: str
    path: str = ""
    domain: str = ""
    expires: str = ""
    http_only: bool = False
    secure: bool = False
    same_site: str = ""


def host_of(head: Head) -> str:
    """The host a request is for, with its port if it names one; empty where it names none.

    An absolute target outranks the Host field (RFC 9112, 3.2.2).
    """
    if head.authority:
        return head.authority
    if _names_host(head):
        return head.target
    return _split(head.target)[0] or head.get("host")


def path_of(head: Head) -> str:
    """The path and query of a request; empty where it asks for a tunnel to its host."""
    return "" if _names_host(head) else _split(head.target)[1]


def _names_host(head: Head) -> bool:
    # A tunnel to a protocol (RFC 8441) has a path, like any other request.
    return head.method == "CONNECT" and not head.target.startswith("/")


def _split(target: str) -> tuple[str, str]:
    """Host and path of an absolute target; any other is a path (RFC 9112, 3.2)."""
    if not target.startswith("/") and _ABSOLUTE.match(target):
        rest = target.partition("://")[2]
        at = min((found for found in map(rest.find, "/?#") if found >= 0), default=len(rest))
        return rest[:at], rest[at:]
    return "", target


def _scheme(target: str) -> str:
    return target.partition("://")[0] if _ABSOLUTE.match(target) else ""


def url_of(head: Head, connection: Connection | None, *, server: bool) -> str:
    """A valid URL for a request: what it does not tell is taken from the connection.

    The scheme is https unless the request says otherwise: what is seen went through TLS. A host
    that nobody knows is ``unknown.invalid`` (RFC 2606). Bytes that may not stand in one are
    encoded as they were sent, whatever their charset.
    """
    host = host_of(head)
    match = _HOST.fullmatch(host)
    if match is None or int(match[1] or 0) > 65535:
        host = "unknown.invalid"
        if connection is not None:
            host = (
                endpoint(connection.local, connection.local_port)
                if server
                else endpoint(connection.remote, connection.remote_port)
            )
    path = path_of(head)
    if not path.startswith("/"):
        path = f"/{path}"
    scheme = (head.scheme or _scheme(head.target)).lower()
    scheme = scheme if scheme in ("http", "https") else "https"
    path = quote(path, safe=_URI_SAFE, encoding="latin-1", errors="replace")
    return f"{scheme}://{host}{_BAD_PERCENT.sub('%25', path)}"


def query_of(target: str) -> list[tuple[str, str]]:
    """Names and values of the query, decoded."""
    query = field_text(target).partition("?")[2].partition("#")[0]
    return pairs_of(query)


def pairs_of(text: str) -> list[tuple[str, str]]:
    """Names and values of text that is application/x-www-form-urlencoded."""
    pairs = []
    for item in text.split("&", LIMIT)[:LIMIT]:
        if item:
            name, _, value = item.partition("=")
            pairs.append((unquote_plus(name), unquote_plus(value)))
    return pairs


def cookies_of(head: Head) -> list[Cookie]:
    """The cookies of a request (RFC 6265, 5.4)."""
    cookies: list[Cookie] = []
    for name, value in head.fields:
        if name.lower() != "cookie":
            continue
        for item in field_text(value).split(";", LIMIT)[: LIMIT - len(cookies)]:
            key, equals, content = item.strip().partition("=")
            if key or equals:
                cookies.append(Cookie(key, content))
    return cookies


def set_cookies_of(head: Head) -> list[Cookie]:
    """The cookies that a response sets (RFC 6265, 5.2)."""
    values = [field_text(value) for name, value in head.fields if name.lower() == "set-cookie"]
    return [_set_cookie(value) for value in values[:LIMIT]]


def _set_cookie(text: str) -> Cookie:
    first, *attributes = text.split(";", 32)
    name, _, value = first.strip().partition("=")
    said = {}
    for attribute in attributes[:32]:
        key, _, content = attribute.strip().partition("=")
        said[key.strip().lower()] = content.strip()
    return Cookie(
        name,
        value,
        said.get("path", ""),
        said.get("domain", ""),
        _date(said.get("expires", "")),
        "httponly" in said,
        "secure" in said,
        said.get("samesite", ""),
    )


def _date(text: str) -> str:
    if not text or len(text) > 64:
        return ""
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return f"{date.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z" if date.year >= 1000 else ""
    except (ValueError, TypeError, OverflowError, IndexError):
        return ""


def form_of(message: HttpMessage) -> list[Parameter]:
    """The parameters of a form that was sent; empty where the content is none."""
    value = message.head.get("content-type")
    media = value.partition(";")[0].strip().lower()
    if media == "application/x-www-form-urlencoded":
        text = message.body.decode("utf-8", "replace")
        return [Parameter(name, content) for name, content in pairs_of(text)]
    if media == "multipart/form-data":
        boundary = _parameters(value).get("boundary", "")
        if boundary:
            return _multipart(message.body, boundary.encode("latin-1", "replace"))
    return []


def _multipart(body: bytes, boundary: bytes) -> list[Parameter]:
    parameters: list[Parameter] = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary, LIMIT + 1)[1 : LIMIT + 1]:
        if part.startswith(b"--"):
            break
        head, _, content = part.partition(b"\r\n\r\n")
        said = {}
        for line in head.decode("utf-8", "replace").split("\r\n", 16)[:16]:
            name, _, value = line.partition(":")
            said[name.strip().lower()] = value.strip()
        disposition = _parameters(said.get("content-disposition", ""))
        file_name = disposition.get("filename", "")
        text: str | None = None
        if not file_name:
            try:
                text = content.decode()
            except UnicodeDecodeError:
                text = None
        kind = said.get("content-type", "")
        parameters.append(Parameter(disposition.get("name", ""), text, file_name, kind))
    return parameters


_PARAMETER: Final = re.compile(r';\s*([^=;\s"]{1,64})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))')


def _parameters(value: str) -> dict[str, str]:
    """The parameters of a field's value (RFC 9110, 5.6.6), names in lower case."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(value[:4096]):
        quoted = match[2]
        text = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        found.setdefault(match[1].lower(), text)
    return found
