# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""Statements as JSON lines. Documented in _statements.pyi."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

import msgspec

from ecapture.events import Statement

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int64_t PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef enum:
    DIGITS = 20
    SECOND = 1000000000

cdef object _encode = msgspec.json.Encoder().encode
cdef object astuple = msgspec.structs.astuple


@cython.final
cdef class Lines:
    cdef object _container_of, _time
    cdef dict _containers  # of one batch
    cdef int64_t _second
    cdef bytes _until_point
    cdef char *_out
    cdef Py_ssize_t _used, _room

    def __init__(self, container_of, time):
        self._container_of, self._time = container_of, time

    def __dealloc__(self):
        PyMem_Free(self._out)

    def encode(self, list events not None, other):
        """See the stub."""
        self._used = 0
        self._containers = {}
        for event in events:
            if type(event) is Statement:
                self._statement(event)
            else:
                line = other(event)
                if line is not None:
                    self._add(_encode(line))
                    self._put(b"\n", 1)
        found = PyBytes_FromStringAndSize(self._out, self._used)
        if self._room > 1 << 20:  # one large batch is not remembered for ever
            PyMem_Free(self._out)
            self._out = NULL
            self._room = 0
        return found

    cdef int _grow(self, Py_ssize_t size) except -1:
        cdef char *grown = <char *>PyMem_Realloc(self._out, 2 * (self._used + size) + 4096)
        if not grown:
            raise MemoryError
        self._out, self._room = grown, 2 * (self._used + size) + 4096
        return 0

    cdef inline int _put(self, const char *what, Py_ssize_t size) except -1:
        if self._used + size > self._room:
            self._grow(size)
        memcpy(self._out + self._used, what, size)
        self._used += size
        return 0

    cdef inline int _add(self, bytes what) except -1:
        return self._put(PyBytes_AS_STRING(what), PyBytes_GET_SIZE(what))

    cdef inline int _text(self, bytes key, text) except -1:
        self._add(key)
        return self._string(text)

    cdef int _string(self, text) except -1:
        cdef const uint8_t *content
        cdef char *at
        cdef Py_ssize_t size, i
        if PyUnicode_IS_COMPACT_ASCII(text):
            content, size = <const uint8_t *>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text)
            if not size:
                return self._put(b'""', 2)
            for i in range(size):
                if content[i] < 0x20 or content[i] == c'"' or content[i] == c"\\":
                    break
            else:
                if self._used + size + 2 > self._room:
                    self._grow(size + 2)
                at = self._out + self._used
                at[0] = c'"'
                memcpy(at + 1, content, size)
                at[size + 1] = c'"'
                self._used += size + 2
                return 0
        return self._add(_encode(text))

    cdef int _number(self, bytes key, number) except -1:
        cdef char[DIGITS] digits
        cdef int at = DIGITS, overflow = 0
        cdef int64_t value
        cdef uint64_t rest
        self._add(key)
        if number is None:
            return self._put(b"null", 4)
        value = PyLong_AsLongLongAndOverflow(number, &overflow)
        if overflow or value < 0:
            return self._add(_encode(number))
        rest = value
        while True:
            at -= 1
            digits[at] = c"0" + rest % 10
            rest //= 10
            if not rest:
                break
        return self._put(digits + at, DIGITS - at)

    cdef int _texts(self, bytes key, tuple texts) except -1:
        cdef bint first = True
        self._add(key)
        self._put(b"[", 1)
        for text in texts:
            if not first:
                self._put(b",", 1)
            first = False
            if text is None:
                self._put(b"null", 4)
            else:
                self._string(text)
        return self._put(b"]", 1)

    cdef int _moment(self, time_ns) except -1:
        # RFC 3339: only the digits behind the point change within a second.
        cdef int overflow = 0
        cdef int64_t value = PyLong_AsLongLongAndOverflow(time_ns, &overflow)
        cdef char[9] digits
        cdef int i
        if overflow or value < 0:
            return self._string(self._time(time_ns))
        if value // SECOND != self._second or self._until_point is None:
            self._second = value // SECOND
            self._until_point = self._time(time_ns).partition(".")[0].encode() + b"."
        value %= SECOND
        for i in range(8, -1, -1):
            digits[i] = c"0" + value % 10
            value //= 10
        self._put(b'"', 1)
        self._add(self._until_point)
        self._put(digits, 9)
        return self._put(b'Z"', 2)

    cdef _container(self, pid):
        found = self._containers.get(pid)
        if found is None:
            found = self._containers[pid] = self._container_of(pid)
        return found

    cdef int _statement(self, event) except -1:
        # In the order of jsonl_types.StatementLine.
        (time_ns, started_ns, pid, tid, uid, comm, server, kind, session, session_ns, user, database, client,
         application, no_identity, name, text, length, missing, parameters, duration_ns, outcome, tag, rows, error,
         message, marks) = astuple(event)
        self._add(b'{"type":"statement","time":')
        self._moment(time_ns)
        self._number(b',"time_ns":', time_ns)
        self._number(b',"pid":', pid)
        self._text(b',"comm":', comm)
        self._text(b',"container":', self._container(pid))
        self._number(b',"tid":', tid)
        self._number(b',"uid":', uid)
        self._text(b',"server":', server)
        self._text(b',"kind":', kind)
        self._number(b',"session":', session)
        self._number(b',"session_ns":', session_ns)
        self._text(b',"user":', user)
        self._text(b',"database":', database)
        self._text(b',"client":', client)
        self._text(b',"application":', application)
        self._text(b',"no_identity":', no_identity)
        self._text(b',"name":', name)
        self._text(b',"text":', text)
        self._number(b',"length":', length)
        self._text(b',"missing":', missing)
        self._texts(b',"parameters":', parameters)
        self._number(b',"started_ns":', started_ns or None)
        self._number(b',"duration_ns":', duration_ns)
        self._text(b',"outcome":', outcome)
        self._text(b',"tag":', tag)
        self._number(b',"rows":', rows)
        self._text(b',"error":', error)
        self._text(b',"message":', message)
        self._texts(b',"marks":', marks)
        return self._put(b"}\n", 2)
