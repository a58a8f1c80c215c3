# SPDX-License-Identifier: Apache-2.0
"""MySQL, MariaDB and Percona servers: every command of every client, whole, and how it ended.

``dispatch_command`` is entered with each packet of a client and left when it has been answered; the
functions that tell the client an outcome have it in their arguments. All of them are found by
``binary.mysqld``, under these names, by the types of their arguments.
"""

from __future__ import annotations

from ecapture._wire import Shape
from ecapture.plan import Hook
from ecapture.probes.spec import ProbeSpec

PROBE = ProbeSpec(
    name="mysqld",
    summary="statements that MySQL, MariaDB and Percona servers are sent, and their outcome",
    kinds=("mysqld",),
    explicit_option="--mysqld",
    required=("dispatch_command",),
    hooks=(
        Hook("dispatch_command", Shape.DISPATCH),
        # int acl_authenticate(THD *, ...): 0 if the client is who it says
        Hook("acl_authenticate", Shape.LOGIN),
        # void end_connection(THD *)
        Hook("end_connection", Shape.SESSION_END),
        # bool Protocol::net_send_ok(THD *, uint status, uint warnings, ulonglong affected,
        #                            ulonglong last id, const char *message, bool is_eof, ...):
        # MariaDB; is_eof since 10.2
        Hook("net_send_ok", Shape.ANSWER_OK_OF),
        Hook("net_send_ok_marked", Shape.ANSWER_OK_MARKED),
        Hook("net_send_eof", Shape.ANSWER_END),
        # bool Protocol::net_send_error_packet(THD *, uint number, const char *message, ...)
        Hook("net_send_error", Shape.ANSWER_ERROR_OF),
        # bool Protocol_classic::send_ok(uint status, uint warnings, ulonglong affected, ulonglong
        #                                last id, const char *message): MySQL
        Hook("send_ok", Shape.ANSWER_OK),
        Hook("send_eof", Shape.ANSWER_END),
        # bool Protocol_classic::send_error(uint number, const char *message, const char *state)
        Hook("send_error", Shape.ANSWER_ERROR),
        Hook("plugin_send_ok", Shape.ANSWER_OK),
        Hook("plugin_send_eof", Shape.ANSWER_END),
        Hook("plugin_send_error", Shape.ANSWER_ERROR),
        # bool Protocol_classic::store_ps_status(ulong id, uint columns, uint parameters, ulong)
        Hook("store_ps_status", Shape.PREPARED_ANSWER),
        Hook("plugin_store_ps_status", Shape.PREPARED_ANSWER),
        # Statement::Statement(LEX *, MEM_ROOT *, enum enum_state, ulong id): MariaDB, MySQL to 5.6
        Hook("Statement", Shape.PREPARED_OBJECT),
    ),
)
