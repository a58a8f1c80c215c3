# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""What there is in a list of events, found and counted quickly. Documented in _tally.pyi."""

from cpython.bytes cimport PyBytes_GET_SIZE

from ecapture.events import Served, Statement


def contains(list events not None, tuple kinds not None):
    """See the stub."""
    cdef object last = None, kind
    for event in events:
        kind = type(event)
        if kind is last:
            continue
        if kind in kinds:
            return True
        last = kind
    return False


def served(list events not None):
    """See the stub."""
    cdef Py_ssize_t count = 0, size = 0, sessions = 0, unreadable = 0
    for event in events:
        if type(event) is not Served:
            continue
        count += 1
        size += PyBytes_GET_SIZE(<bytes?>event.payload)
        if not event.kept_offset and event.direction == "read":
            sessions += 1
        if event.missing:
            unreadable += 1
    return count, size, sessions, unreadable


def statements(list events not None):
    """See the stub."""
    cdef Py_ssize_t count = 0, truncated = 0, unreadable = 0
    for event in events:
        if type(event) is not Statement:
            continue
        count += 1
        missing = event.missing
        if missing:
            truncated += missing == "truncated"
            unreadable += missing == "unreadable"
        if event.marks and missing != "truncated":
            truncated += "parameters truncated" in event.marks
    return count, truncated, unreadable
