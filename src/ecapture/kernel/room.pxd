# SPDX-License-Identifier: Apache-2.0
# Bytes that are filled in before anybody else sees them, and then shortened in place: copying what was read would cost
# more than reading it did. A reference is passed on from the one function to the other.
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_DECREF, PyObject


cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *content, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject **content, Py_ssize_t size) except -1


cdef inline bytes shortened(PyObject *content, Py_ssize_t size):
    _PyBytes_Resize(&content, size)
    found = <bytes>content
    Py_DECREF(found)
    return found
