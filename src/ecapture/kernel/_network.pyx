# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""Links to interfaces and cgroups, iterators, classifiers and namespaces; no policy. Documented in _network.pyi."""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset

from ecapture.kernel.libbpf cimport *
from ecapture.kernel._native import NativeError


cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <sched.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Of union bpf_attr, the members that are used here (UAPI linux/bpf.h, Linux 6.6). */
    struct ec_target_link { __u32 prog_fd, target, attach_type, flags; __u64 rest[4]; };
    struct ec_iterator { __u32 link_fd, flags; };

    static long ec_bpf_command(int command, void *attr, unsigned size) {
        return syscall(__NR_bpf, command, attr, size);
    }

    /* fsopen, fsconfig, fsmount (Linux 5.2; these numbers are the same on all architectures) */
    static int ec_cgroup_tree(void) {
        int context = syscall(430, "cgroup2", 1 /* FSOPEN_CLOEXEC */), tree = -1, failed;
        if (context < 0)
            return -1;
        if (!syscall(431, context, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0))
            tree = syscall(432, context, 1 /* FSMOUNT_CLOEXEC */, 0);
        failed = errno;
        close(context);
        errno = failed;
        return tree;
    }
    """
    cdef struct ec_target_link:
        uint32_t prog_fd, target, attach_type, flags
    cdef struct ec_iterator:
        uint32_t link_fd, flags
    long ec_bpf_command(int command, void *attr, unsigned size) nogil
    int ec_cgroup_tree() nogil
    int c_close "close"(int fd) nogil
    ssize_t c_read "read"(int fd, void *buffer, size_t size) nogil
    int c_setns "setns"(int fd, int kind) nogil
    int CLONE_NEWNET


cdef enum:
    LINK_CREATE = 28
    ITER_CREATE = 33


cdef class Attachment:
    cdef int _fd

    def __cinit__(self, int program_fd, uint32_t target, int attach_type, uint32_t flags=0):
        cdef ec_target_link attr
        cdef long fd
        self._fd = -1
        memset(&attr, 0, sizeof(attr))
        attr.prog_fd = program_fd
        attr.target = target
        attr.attach_type = attach_type
        attr.flags = flags
        with nogil:
            fd = ec_bpf_command(LINK_CREATE, &attr, sizeof(attr))
        if fd < 0:
            raise NativeError("attach", f"attach type {attach_type}", errno)
        self._fd = fd

    def run(self):
        cdef ec_iterator attr
        cdef char buffer[4096]
        cdef ssize_t got = 1
        cdef int failed = 0
        if self._fd < 0:
            raise ValueError("closed")
        attr.link_fd = self._fd
        attr.flags = 0
        cdef long fd = ec_bpf_command(ITER_CREATE, &attr, sizeof(attr))
        if fd < 0:
            raise NativeError("iterate", "an iterator", errno)
        with nogil:
            while got > 0 or (got < 0 and failed == EINTR):
                got = c_read(fd, buffer, sizeof(buffer))
                failed = errno
            c_close(fd)
        if got < 0:
            raise NativeError("read", "an iterator", failed)

    def close(self):
        cdef int fd = self._fd
        self._fd = -1
        if fd >= 0:
            with nogil:
                c_close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __dealloc__(self):
        if self._fd >= 0:
            c_close(self._fd)


def enter_network(int namespace_fd):
    if c_setns(namespace_fd, CLONE_NEWNET):
        raise NativeError("enter", "a network namespace", errno)


def cgroup_tree():
    cdef int fd = ec_cgroup_tree()
    if fd < 0:
        raise NativeError("mount", "the cgroup v2 tree", errno)
    return fd
