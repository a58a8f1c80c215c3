# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""What all records have, from wire.h itself."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "wire.h":
    int EC_COMM_LENGTH
    int EC_FLAG_FAULT, EC_FLAG_TRUNCATED, EC_FLAG_LAST, EC_FLAG_BOUNDARY
    cdef struct ec_header:
        uint64_t time_ns
        uint32_t size
        uint16_t kind, flags
        uint32_t pid, tid, uid, cpu
        uint8_t comm[16]


cdef inline object shifted(uint64_t time_ns, int64_t offset_ns):
    # A recording may say anything: what does not fit becomes a large number rather than a wrong one.
    if time_ns < <uint64_t>1 << 62 and -(<int64_t>1 << 62) < offset_ns < <int64_t>1 << 62:
        return <int64_t>time_ns + offset_ns
    return <object>time_ns + <object>offset_ns
