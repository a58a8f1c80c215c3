# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""Records about commands to database servers, to events. Documented in _commands.pyi.

The layout is that of wire.h itself. Every size is compared with the end of the batch before anything is read: a batch
may be from a recording, and a recording from anybody.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from ecapture.kernel.wire cimport EC_COMM_LENGTH, EC_FLAG_FAULT, EC_FLAG_LAST, EC_FLAG_TRUNCATED, ec_header, shifted

from ecapture.events import Command, CommandEnd, CommandText, WholeQuery

cdef extern from "wire.h":
    enum:
        EC_SERVER_NAME, EC_SERVER_DATABASE
    int EC_KIND_COMMAND, EC_KIND_COMMAND_TEXT, EC_KIND_COMMAND_END
    int EC_TEXT_STATEMENT, EC_TEXT_MESSAGE
    int EC_COMMAND_ANSWERED, EC_COMMAND_CLOSES, EC_COMMAND_HAS_CONNECTION, EC_COMMAND_HAS_ROWS
    int EC_COMMAND_HAS_STATEMENT, EC_COMMAND_HAS_AFFECTED
    int EC_COMMAND_USER_CUT, EC_COMMAND_HOST_CUT, EC_COMMAND_DATABASE_CUT
    int EC_COMMAND_USER_UNREAD, EC_COMMAND_HOST_UNREAD, EC_COMMAND_DATABASE_UNREAD
    cdef struct ec_command:
        ec_header header
        uint64_t session, connection, text_length
        uint32_t statement
        uint16_t flags
        uint8_t command, known
        uint16_t user_length, host_length, database_length, sent_length
        uint8_t role
    cdef struct ec_command_text:
        ec_header header
        uint64_t session, started_ns, length, offset
        uint8_t role
    cdef struct ec_command_end:
        ec_header header
        uint64_t session, started_ns, connection, affected, last_id, rows
        uint32_t statement, error, results
        uint16_t flags
        uint8_t command

cdef enum:
    ALL_KNOWN = 7  # user, host and database: the build shows them
    NAMES = 2 * EC_SERVER_NAME + EC_SERVER_DATABASE
    QUERY = 3
    HELD = 64

# The record of a query's beginning, somewhere in the batch.
cdef struct held:
    const uint8_t *content
    size_t size
    uint64_t session, started_ns
    uint32_t pid, tid


cdef inline word(const uint8_t *text, size_t size):
    return PyUnicode_DecodeUTF8(<const char *>text, size, "backslashreplace") if size else ""


cdef class Commands:
    cdef object _name_of, _unknown_of
    # the last ones, which often come again
    cdef ec_command _last
    cdef uint8_t[NAMES] _names
    cdef object _name, _user, _host, _database
    cdef uint64_t _started_ns
    cdef object _key, _pid, _tid
    cdef held[HELD] _held
    cdef int _count

    def __init__(self, name_of, unknown_of):
        self._name_of, self._unknown_of = name_of, unknown_of
        self._name = self._user = None
        self._key = None
        self._count = 0

    def decode(self, bytes batch not None, size_t at, list events not None, int64_t offset_ns):
        """See the stub."""
        cdef const uint8_t *content = <const uint8_t *>PyBytes_AS_STRING(batch)
        cdef size_t total = PyBytes_GET_SIZE(batch), size
        cdef ec_header header
        self._count = 0
        while at < total and total - at >= sizeof(ec_header):
            memcpy(&header, content + at, sizeof(ec_header))
            size = header.size
            if size < sizeof(ec_header) or size > total - at:
                break
            if header.kind == EC_KIND_COMMAND and size >= sizeof(ec_command):
                if not self._hold(content + at, size, events, offset_ns):
                    event = self._begin(content + at, size, offset_ns)
                    if event is None:
                        break
                    events.append(event)
            elif header.kind == EC_KIND_COMMAND_TEXT and size >= sizeof(ec_command_text):
                self._release(&header, (<ec_command_text *>(content + at)).session, events, offset_ns)
                event = self._text(content + at, size, offset_ns)
                if event is None:
                    break
                events.append(event)
            elif header.kind == EC_KIND_COMMAND_END and size == sizeof(ec_command_end):
                if not self._whole(content + at, events, offset_ns):
                    self._release(&header, (<ec_command_end *>(content + at)).session, events, offset_ns)
                    events.append(self._end(content + at, offset_ns))
            else:
                break
            at += (size + 7) & ~<size_t>7
        while self._count:
            self._tell_held(0, events, offset_ns)
        return at

    cdef bint _hold(self, const uint8_t *content, size_t size, list events, int64_t offset_ns) except -1:
        # Whether this is the beginning of a query that may become a whole one.
        cdef ec_command record
        cdef held *place
        memcpy(&record, content, sizeof(ec_command))
        self._release(&record.header, record.session, events, offset_ns)
        if (
            record.command != QUERY or record.role != EC_TEXT_STATEMENT or not record.sent_length
            or record.sent_length != record.text_length
            or record.user_length + record.host_length + record.database_length > NAMES
            or size != sizeof(ec_command) + record.user_length + record.host_length + record.database_length
            + record.sent_length
        ):
            return False
        if self._count == HELD:
            self._tell_held(0, events, offset_ns)
        place = &self._held[self._count]
        place.content, place.size = content, size
        place.session, place.started_ns = record.session, record.header.time_ns
        place.pid, place.tid = record.header.pid, record.header.tid
        self._count += 1
        return True

    cdef _tell_held(self, int number, list events, int64_t offset_ns):
        events.append(self._begin(self._held[number].content, self._held[number].size, offset_ns))
        self._forget(number)

    cdef void _forget(self, int number) noexcept:
        self._count -= 1
        memmove(&self._held[number], &self._held[number + 1], (self._count - number) * sizeof(held))

    cdef _release(self, ec_header *header, uint64_t session, list events, int64_t offset_ns):
        # What this thread, or this session, had begun is not as most are.
        cdef int i = 0
        while i < self._count:
            if self._held[i].pid == header.pid and (
                self._held[i].tid == header.tid or self._held[i].session == session
            ):
                self._tell_held(i, events, offset_ns)
            else:
                i += 1

    cdef bint _whole(self, const uint8_t *content, list events, int64_t offset_ns) except -1:
        # Whether this ends a query that is held, as most end.
        cdef ec_command_end end
        cdef ec_command begin
        cdef const uint8_t *at
        cdef int i
        cdef size_t names
        memcpy(&end, content, sizeof(ec_command_end))
        for i in range(self._count):
            if (
                self._held[i].tid == end.header.tid and self._held[i].started_ns == end.started_ns
                and self._held[i].session == end.session and self._held[i].pid == end.header.pid
            ):
                break
        else:
            return False
        if (
            end.command != QUERY or end.error or end.results > 1
            or end.flags & (EC_COMMAND_ANSWERED | EC_COMMAND_HAS_STATEMENT) != EC_COMMAND_ANSWERED
        ):
            return False
        at = self._held[i].content
        memcpy(&begin, at, sizeof(ec_command))
        at += sizeof(ec_command)
        names = <size_t>begin.user_length + begin.host_length + begin.database_length
        self._learn_command(&end.header)
        self._learn_names(&begin, at, names)
        rows = None
        if end.flags & EC_COMMAND_HAS_AFFECTED:
            rows = end.affected
        elif end.flags & EC_COMMAND_HAS_ROWS:
            rows = end.rows
        events.append(WholeQuery(
            shifted(end.header.time_ns, offset_ns), shifted(begin.header.time_ns, offset_ns),
            end.header.pid, end.header.tid, end.header.uid, self._name, end.session,
            end.connection if end.flags & EC_COMMAND_HAS_CONNECTION else None,
            self._user, self._database, self._host, self._unknown(&begin),
            PyBytes_FromStringAndSize(<const char *>at + names, begin.sent_length), rows,
        ))
        self._forget(i)
        return True

    cdef _unknown(self, ec_command *record):
        cdef int remarks = (
            EC_COMMAND_USER_CUT | EC_COMMAND_HOST_CUT | EC_COMMAND_DATABASE_CUT
            | EC_COMMAND_USER_UNREAD | EC_COMMAND_HOST_UNREAD | EC_COMMAND_DATABASE_UNREAD
        )
        if record.known != ALL_KNOWN or record.flags & remarks:
            return self._unknown_of(record.known, record.flags)
        return ""

    cdef _learn(self, ec_header *header, uint64_t started_ns):
        # Name and key of this record.
        self._learn_command(header)
        if (
            self._key is None or self._started_ns != started_ns or self._last.header.pid != header.pid
            or self._last.header.tid != header.tid
        ):
            self._started_ns, self._last.header.pid, self._last.header.tid = started_ns, header.pid, header.tid
            self._pid, self._tid = header.pid, header.tid
            self._key = (self._pid, self._tid, started_ns)

    cdef _learn_command(self, ec_header *header):
        if self._name is None or memcmp(self._last.header.comm, header.comm, EC_COMM_LENGTH):
            self._name = self._name_of((<char *>header.comm)[:EC_COMM_LENGTH])
            memcpy(self._last.header.comm, header.comm, EC_COMM_LENGTH)

    cdef _begin(self, const uint8_t *content, size_t size, int64_t offset_ns):
        # None: it is not as the wire says.
        cdef ec_command record
        cdef size_t names
        cdef const uint8_t *at = content + sizeof(ec_command)
        memcpy(&record, content, sizeof(ec_command))
        names = <size_t>record.user_length + record.host_length + record.database_length
        if (
            names > NAMES or size != sizeof(ec_command) + names + record.sent_length
            or record.role > EC_TEXT_MESSAGE
        ):
            return None
        self._learn(&record.header, record.header.time_ns)
        self._learn_names(&record, at, names)
        return Command(
            shifted(record.header.time_ns, offset_ns), self._pid, self._tid, record.header.uid, self._name,
            record.session, self._key, record.command,
            record.connection if record.flags & EC_COMMAND_HAS_CONNECTION else None,
            record.statement if record.flags & EC_COMMAND_HAS_STATEMENT else None,
            record.text_length, self._user, self._host, self._database, self._unknown(&record), record.role,
            PyBytes_FromStringAndSize(<const char *>at + names, record.sent_length),
        )

    cdef _learn_names(self, ec_command *record, const uint8_t *at, size_t names):
        if (
            self._user is not None and record.user_length == self._last.user_length
            and record.host_length == self._last.host_length
            and record.database_length == self._last.database_length and not memcmp(self._names, at, names)
        ):
            return
        memcpy(self._names, at, names)
        self._user = word(at, record.user_length)
        at += record.user_length
        self._host = word(at, record.host_length)
        self._database = word(at + record.host_length, record.database_length)
        self._last.user_length = record.user_length
        self._last.host_length, self._last.database_length = record.host_length, record.database_length

    cdef _text(self, const uint8_t *content, size_t size, int64_t offset_ns):
        # None: it is not as the wire says.
        cdef ec_command_text record
        cdef uint16_t flags
        memcpy(&record, content, sizeof(ec_command_text))
        size -= sizeof(ec_command_text)
        if record.role > EC_TEXT_MESSAGE or record.offset > record.length or size > record.length - record.offset:
            return None
        self._learn(&record.header, record.started_ns)
        flags = record.header.flags
        missing = ""
        if flags & EC_FLAG_FAULT:
            missing = "unreadable"
        elif flags & EC_FLAG_TRUNCATED and flags & EC_FLAG_LAST:
            missing = "truncated"
        return CommandText(
            shifted(record.header.time_ns, offset_ns), self._pid, self._tid, record.header.uid, self._name,
            self._key, record.role, record.length, record.offset,
            PyBytes_FromStringAndSize(<const char *>content + sizeof(ec_command_text), size), missing,
            flags & EC_FLAG_LAST != 0,
        )

    cdef _end(self, const uint8_t *content, int64_t offset_ns):
        cdef ec_command_end record
        cdef uint16_t told
        memcpy(&record, content, sizeof(ec_command_end))
        self._learn(&record.header, record.started_ns)
        told = record.flags
        return CommandEnd(
            shifted(record.header.time_ns, offset_ns), self._pid, self._tid, record.header.uid, self._name,
            record.session, self._key, record.command,
            record.connection if told & EC_COMMAND_HAS_CONNECTION else None,
            record.statement if told & EC_COMMAND_HAS_STATEMENT else None,
            record.error, record.results,
            record.affected if told & EC_COMMAND_HAS_AFFECTED else None,
            record.rows if told & EC_COMMAND_HAS_ROWS else None,
            told & EC_COMMAND_ANSWERED != 0, told & EC_COMMAND_CLOSES != 0,
        )
