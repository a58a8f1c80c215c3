# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""The system call that libraries of C before 2.36 have no function for. Documented in _mounts.pyi."""

from libc.errno cimport errno

import os

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* OPEN_TREE_CLONE (UAPI linux/mount.h, Linux 5.2), whose header contradicts that of the C library. */
    static int ec_clone(const char *path) { return syscall(__NR_open_tree, AT_FDCWD, path, 1 | O_CLOEXEC); }
    """
    int ec_clone(const char *path) nogil


def clone(str path):
    encoded = os.fsencode(path)
    cdef const char *name = encoded
    cdef int fd
    with nogil:
        fd = ec_clone(name)
    if fd < 0:
        raise OSError(errno, os.strerror(errno), path)
    return fd
