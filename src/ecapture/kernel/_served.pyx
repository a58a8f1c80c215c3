# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""Records of what PostgreSQL servers exchange, to events. Documented in _served.pyi.

The layout is that of wire.h itself. Every size is compared with the end of the batch before anything is read: a batch
may be from a recording, and a recording from anybody.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy

from ecapture.kernel.wire cimport EC_COMM_LENGTH, EC_FLAG_BOUNDARY, EC_FLAG_FAULT, EC_FLAG_TRUNCATED, ec_header, shifted

from ecapture.events import Served

cdef extern from "wire.h":
    int EC_KIND_SERVED
    cdef struct ec_tuple_value:
        pass
    cdef struct ec_served:
        ec_header header
        uint64_t generation, kept_offset
        ec_tuple_value tuple
        uint8_t direction, late


cdef class Runs:
    cdef object _name_of, _ends_of
    # the last ones, which nearly always come again
    cdef ec_served _last
    cdef object _name, _client, _reason

    def __init__(self, name_of, ends_of):
        self._name_of, self._ends_of = name_of, ends_of
        self._name = self._client = None

    def decode(self, bytes batch not None, size_t at, list events not None, int64_t offset_ns):
        """See the stub."""
        cdef const uint8_t *content = <const uint8_t *>PyBytes_AS_STRING(batch)
        cdef size_t total = PyBytes_GET_SIZE(batch), size
        cdef ec_served record
        cdef uint16_t flags
        while at < total and total - at >= sizeof(ec_served):
            memcpy(&record, content + at, sizeof(ec_served))
            size = record.header.size
            if record.header.kind != EC_KIND_SERVED or size < sizeof(ec_served) or size > total - at:
                break
            self._learn(&record)
            flags = record.header.flags
            events.append(
                Served(
                    shifted(record.header.time_ns, offset_ns),
                    record.header.pid,
                    record.header.tid,
                    record.header.uid,
                    self._name,
                    "write" if record.direction else "read",
                    shifted(record.generation, offset_ns),
                    self._client,
                    self._reason,
                    record.kept_offset,
                    size - sizeof(ec_served),
                    PyBytes_FromStringAndSize(<const char *>content + at + sizeof(ec_served), size - sizeof(ec_served)),
                    flags & EC_FLAG_BOUNDARY != 0,
                    record.late != 0,
                    "unreadable" if flags & EC_FLAG_FAULT else "",
                    flags & EC_FLAG_TRUNCATED != 0,
                )
            )
            at += (size + 7) & ~<size_t>7
        return at

    cdef _learn(self, ec_served *record):
        # Name and client of this record.
        if self._name is None or memcmp(self._last.header.comm, record.header.comm, EC_COMM_LENGTH):
            self._name = self._name_of((<char *>record.header.comm)[:EC_COMM_LENGTH])
            memcpy(self._last.header.comm, record.header.comm, EC_COMM_LENGTH)
        if self._client is None or memcmp(&self._last.tuple, &record.tuple, sizeof(ec_tuple_value)):
            self._client, self._reason = self._ends_of((<char *>&record.tuple)[:sizeof(ec_tuple_value)])
            memcpy(&self._last.tuple, &record.tuple, sizeof(ec_tuple_value))
