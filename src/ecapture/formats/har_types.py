# SPDX-License-Identifier: Apache-2.0
"""The objects of an HTTP Archive 1.2 that ``har`` writes.

Members are as in the format's description (Odvarko, HAR 1.2 Spec); those that begin with an
underscore are ours, as it permits. Times are in milliseconds, sizes in bytes; -1 stands for what is
not known. Members that are empty or UNSET are left out only where the format says optional.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field


class NameValue(Struct):
    """A header field or query item."""

    name: str
    value: str


class Cookie(Struct, rename="camel"):
    """A cookie that is sent or set."""

    name: str
    value: str
    path: str | UnsetType = UNSET
    domain: str | UnsetType = UNSET
    expires: str | UnsetType = UNSET
    http_only: bool | UnsetType = UNSET
    secure: bool | UnsetType = UNSET
    same_site: str | UnsetType = UNSET


class Param(Struct, rename="camel"):
    """A parameter of a form."""

    name: str
    value: str | UnsetType = UNSET
    file_name: str | UnsetType = UNSET
    content_type: str | UnsetType = UNSET


class PostData(Struct, rename="camel"):
    """The content of a request.

    ``text`` is there beside ``params`` too, as browsers write it: readers rely on it. ``_encoding``
    is base64 where the content is binary; the format has no place for that.
    """

    mime_type: str
    text: str
    params: list[Param]
    encoding: str | UnsetType = field(default=UNSET, name="_encoding")
    comment: str | UnsetType = UNSET


class Content(Struct, rename="camel"):
    """The content of a response. ``compression`` is what its codings saved.

    ``text`` is optional in the format; some readers rely on it.
    """

    size: int
    mime_type: str
    text: str = ""
    compression: int | UnsetType = UNSET
    encoding: str | UnsetType = UNSET
    comment: str | UnsetType = UNSET


class Request(Struct, rename="camel"):
    """A request."""

    method: str
    url: str
    http_version: str
    cookies: list[Cookie]
    headers: list[NameValue]
    query_string: list[NameValue]
    headers_size: int
    body_size: int
    post_data: PostData | UnsetType = UNSET
    trailers: list[NameValue] | UnsetType = field(default=UNSET, name="_trailers")


class Response(Struct, rename="camel"):
    """A response. One that was not seen has the status 0, as in browsers."""

    status: int
    status_text: str
    http_version: str
    cookies: list[Cookie]
    headers: list[NameValue]
    content: Content
    redirect_url: str = field(name="redirectURL")
    headers_size: int
    body_size: int
    trailers: list[NameValue] | UnsetType = field(default=UNSET, name="_trailers")


class Timings(Struct):
    """How the time was spent. What came before the request is not seen."""

    send: float
    wait: float
    receive: float
    blocked: float = -1
    dns: float = -1
    connect: float = -1
    ssl: float = -1


class Cache(Struct):
    """Nothing is known of caches."""


class Entry(Struct, rename="camel"):
    """One exchange."""

    started_date_time: str
    time: float
    request: Request
    response: Response
    cache: Cache
    timings: Timings
    connection: str
    pid: int = field(name="_pid")
    tid: int = field(name="_tid")
    uid: int = field(name="_uid")
    comm: str = field(name="_comm")
    container: str = field(name="_container")
    role: str = field(name="_role")
    direction: str = field(name="_direction")
    stream: int = field(name="_stream")
    marks: list[str] = field(name="_marks")
    problem: str = field(name="_problem")
    server_ip_address: str | UnsetType = field(default=UNSET, name="serverIPAddress")
    tls_version: str | UnsetType = field(default=UNSET, name="_tlsVersion")
    tls_cipher: str | UnsetType = field(default=UNSET, name="_tlsCipher")
    local: str | UnsetType = field(default=UNSET, name="_local")
    remote: str | UnsetType = field(default=UNSET, name="_remote")
    comment: str | UnsetType = UNSET
