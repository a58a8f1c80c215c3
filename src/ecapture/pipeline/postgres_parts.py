# SPDX-License-Identifier: Apache-2.0
"""What a session of a PostgreSQL server is made of: requests, what they name, and who asks.

``Who`` makes ``Statement`` events; ``postgres_session`` knows when.
"""

from __future__ import annotations

import codecs
from typing import Final, Literal, TypeAlias

import msgspec

from ecapture.events import Served, SessionFacts, Statement, StatementKind
from ecapture.protocols import postgres
from ecapture.protocols.postgres_values import parameter_text

Identity: TypeAlias = tuple[int, int, str, int, str, str, str, str, str, str, int]
"""Process, user and name of the back-end, the time it was first seen; user, database, client,
application and no_identity as ``Statement`` has them; the encoding, and the limit of texts."""
Parameters: TypeAlias = tuple[str | None, ...]
RequestKind = Literal[
    "query", "parse", "bind", "describe", "execute", "close", "call", "sync", "startup"
]
STATEMENTS: Final = ("query", "execute", "call")
"""The kinds of requests that a statement is told of when they are answered."""
# The encodings that a client may have (pg_enc2name_tbl, src/common/encnames.c), as Python calls
# them. No other name counts: Python also knows codecs that are none of texts, and would raise.
_CODECS: Final = {
    **dict.fromkeys(("SQL_ASCII", "UTF8", "UNICODE"), "utf-8"),
    "EUC_JP": "euc_jp",
    "EUC_CN": "gb2312",
    "EUC_KR": "euc_kr",
    "EUC_JIS_2004": "euc_jis_2004",
    "SJIS": "shift_jis",
    "SHIFT_JIS_2004": "shift_jis_2004",
    "BIG5": "big5",
    "GBK": "gbk",
    "GB18030": "gb18030",
    "UHC": "cp949",
    "JOHAB": "johab",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    **{f"ISO_8859_{n}": f"iso8859_{n}" for n in range(5, 9)},
    **{f"WIN{n}": f"cp{n}" for n in (866, 874, *range(1250, 1259))},
    **{f"LATIN{n}": f"latin{n}" for n in range(1, 11)},
}


class Prepared(msgspec.Struct, gc=False):
    """A text as ``Statement`` has it, and the types of its parameters."""

    text: str
    length: int
    missing: str
    types: tuple[int, ...]


class Portal(msgspec.Struct, gc=False):
    """A statement with its parameters. ``name`` is that of the prepared statement."""

    name: str
    prepared: Prepared
    parameters: tuple[str | None, ...]
    cut: bool
    executed: bool = False


class Request(msgspec.Struct):
    """What waits for its answer. ``name`` is of a statement or, for "call", a function's number.

    ``of_statement`` tells a Describe or Close of a statement from that of a portal.
    """

    kind: RequestKind
    time_ns: int
    name: str = ""
    portal: str = ""
    prepared: Prepared | None = None
    bind: postgres.Bind | None = None
    pipelined: bool = False
    tags: tuple[str, ...] = ()
    error: postgres.Failure | None = None
    answered_ns: int = 0
    of_statement: bool = False


NO_TEXT: Final = Prepared("", 0, "", ())
UNKNOWN: Final = Prepared("", 0, "unseen", ())
NO_PORTAL: Final = Portal("", UNKNOWN, (), cut=False)


class Who:
    """Whose session it is. ``limit`` is that of texts in bytes."""

    def __init__(self, first: Served, facts: SessionFacts | None, limit: int) -> None:
        self._limit = limit
        self._codec = "utf-8"
        self._pid = first.pid
        self._uid, self._comm = first.uid, first.comm
        self._since_ns = first.session_ns
        self._client, self._no_client = first.client, first.no_client
        self._user = self._database = self._application = self._no_identity = ""
        if facts is not None:
            self._user, self._database = facts.user, facts.database
            self._application, self._no_identity = facts.application, facts.reason
            self._client = self._client or facts.client

    def seen(self, event: Served) -> None:
        """Learns the client's address, which may be known later than the session."""
        self._client = self._client or event.client
        self._no_client = event.no_client

    def identity(self) -> Identity | None:
        """All of it, where the client's address is known; else it may be told later."""
        if not self._client:
            return None
        return (
            self._pid,
            self._uid,
            self._comm,
            self._since_ns,
            self._user,
            self._database,
            self._client,
            self._application,
            self._no_identity,
            self._codec,
            self._limit,
        )

    def start(self, parameters: dict[bytes, bytes]) -> None:
        """Takes the start-up packet."""
        told = {
            key.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
            for key, value in parameters.items()
        }
        self._no_identity = ""
        self._user = told.get("user", "")
        replication = told.get("replication", "").lower() in ("true", "on", "yes", "1")
        self._database = "" if replication else told.get("database", "") or self._user
        self._application = told.get("application_name", "")

    def parameter(self, name: bytes, value: bytes) -> None:
        """Takes what the server reports of its settings."""
        text = self.text(value)
        if name == b"client_encoding":
            self._codec = codecs.lookup(_CODECS.get(text, "utf-8")).name
        elif name == b"application_name":
            self._application = text
        elif name == b"session_authorization" and text:
            self._user = text

    def text(self, raw: bytes) -> str:
        """A name or a message in the client's encoding."""
        if not raw:
            return ""
        return raw.decode(self._codec, "backslashreplace")

    def prepared(
        self, text: bytes, length: int, types: tuple[int, ...] = (), *, cut: bool = False
    ) -> Prepared:
        """The text of a statement, of which there were ``length`` bytes."""
        kept = text[: self._limit]
        missing = "truncated" if cut or len(kept) < length else ""
        try:
            shown = kept.decode(self._codec)
        except UnicodeDecodeError as error:
            # a character that the cut went through is left out
            if missing and error.reason == "unexpected end of data":
                kept = kept[: error.start]
            shown = kept.decode(self._codec, "backslashreplace")
        return Prepared(shown, length, missing, types)

    def portal(self, request: Request, prepared: Prepared) -> Portal:
        """What a Bind makes of a prepared statement."""
        bind = request.bind
        if bind is None or not bind.values:
            return Portal(request.name, prepared, (), cut=bind is not None and bind.cut)
        types = prepared.types
        parameters = tuple(
            None
            if value is None
            else parameter_text(
                value,
                binary=bind.formats[i] == 1,
                oid=types[i] if i < len(types) else 0,
                codec=self._codec,
            )
            for i, value in enumerate(bind.values)
        )
        return Portal(request.name, prepared, parameters, cut=bind.cut)

    def executed(
        self,
        kind: StatementKind,
        request: Request,
        portal: Portal,
        time_ns: int,
        *marks: str,
        lost: bool = False,
    ) -> Statement:
        """The event of an Execute."""
        if portal.cut:
            marks = (*marks, "parameters truncated")
        return self.statement(
            kind,
            request,
            portal.prepared,
            time_ns,
            *marks,
            name=portal.name,
            parameters=portal.parameters,
            lost=lost,
        )

    def statement(
        self,
        kind: StatementKind,
        request: Request,
        prepared: Prepared,
        time_ns: int,
        *marks: str,
        name: str = "",
        parameters: tuple[str | None, ...] = (),
        lost: bool = False,
    ) -> Statement:
        """The event of a request that was answered at ``time_ns``, or ``lost`` its answer."""
        error = request.error
        if request.pipelined:
            marks = (*marks, "pipelined")
        unknown = (lost and error is None) or "skipped" in marks
        outcome: Literal["ok", "error", "unknown"] = "unknown" if unknown else "ok"
        if error is not None:
            outcome = "error"
        tags = request.tags
        if len(tags) == 1:
            tag, rows = tags[0], postgres.rows_of(tags[0])
        else:
            tag = "; ".join(tags)
            counts = [count for tag in tags if (count := postgres.rows_of(tag)) is not None]
            rows = sum(counts) if counts else None
        started_ns = request.time_ns
        return Statement(
            time_ns,
            started_ns,
            self._pid,
            self._pid,
            self._uid,
            self._comm,
            "postgresql",
            kind,
            self._pid,
            self._since_ns,
            self._user,
            self._database,
            self._client,
            self._application,
            self._no_identity or ("" if self._client else self._no_client),
            name,
            prepared.text,
            prepared.length,
            prepared.missing,
            parameters,
            None if unknown or not started_ns else max(time_ns - started_ns, 0),
            outcome,
            tag,
            rows,
            error.code if error is not None else "",
            self.text(error.message) if error is not None else "",
            marks,
        )
