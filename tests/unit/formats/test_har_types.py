# SPDX-License-Identifier: Apache-2.0
"""The objects of an archive have the names that the format gives them; others begin with "_"."""

from __future__ import annotations

import msgspec
import pytest

from ecapture.formats import har_types

# HAR 1.2 Spec, by object: members that must be there, and those that may be.
SPECIFIED = {
    "Cookie": ("name value", "path domain expires httpOnly secure comment sameSite"),
    "NameValue": ("name value", "comment"),
    "PostData": ("mimeType params text", "comment"),
    "Param": ("name", "value fileName contentType comment"),
    "Content": ("size mimeType", "compression text encoding comment"),
    "Request": (
        "method url httpVersion cookies headers queryString headersSize bodySize",
        "postData comment",
    ),
    "Response": (
        "status statusText httpVersion cookies headers content redirectURL headersSize bodySize",
        "comment",
    ),
    "Timings": ("send wait receive", "blocked dns connect ssl comment"),
    "Cache": ("", "beforeRequest afterRequest comment"),
    "Entry": (
        "startedDateTime time request response cache timings",
        "pageref serverIPAddress connection comment",
    ),
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_members(name: str) -> None:
    required, optional = (set(words.split()) for words in SPECIFIED[name])
    schema = msgspec.json.schema(getattr(har_types, name))["$defs"][name]
    members = {member for member in schema["properties"] if not member.startswith("_")}
    assert required <= set(schema["required"])
    assert members <= required | optional
