# SPDX-License-Identifier: Apache-2.0
"""What ``--filter`` may ask of statements to databases: a table for ``filter_fields``.

``duration``, ``size`` (of the text), ``pid``, ``uid``, ``comm``, ``container``, ``role`` and
``protocol`` are the fields of all events and stand there.
"""

from __future__ import annotations

from typing import Final, NamedTuple, get_args

from ecapture.events import StatementKind
from ecapture.pipeline.expression import Kind


class StatementField(NamedTuple):
    """A field: ``attribute`` of ``events.Statement``. ``any_case`` as in ``Field``."""

    name: str
    kind: Kind
    summary: str
    attribute: str
    any_case: bool = False
    choices: tuple[str, ...] = ()


STATEMENT_FIELDS: Final = (
    StatementField("sql", "text", "the text of a statement", "text"),
    StatementField(
        "statement",
        "text",
        "what is asked of a database",
        "kind",
        any_case=True,
        choices=get_args(StatementKind),
    ),
    StatementField("user", "text", "the user of a database", "user"),
    StatementField("database", "text", "the name of a database", "database"),
    StatementField("client", "text", "address:port of a database's client, or local", "client"),
    StatementField("application", "text", "what a database's client calls itself", "application"),
    StatementField("session", "number", "a database's number of a session", "session"),
    StatementField("name", "text", "the name of a prepared statement", "name"),
    StatementField("rows", "number", "rows returned or affected", "rows"),
    StatementField("tag", "text", "what a database says was done, such as INSERT 0 1", "tag"),
    StatementField(
        "outcome",
        "text",
        "how a statement ended",
        "outcome",
        any_case=True,
        choices=("ok", "error", "unknown"),
    ),
    StatementField("error", "text", "SQLSTATE or number of a statement's error", "error"),
)
