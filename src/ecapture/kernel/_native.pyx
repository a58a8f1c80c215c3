# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False
"""Lifetimes, errno and batched reads over libbpf; no policy. Documented in _native.pyi."""

cimport cython
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport ENOENT, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from ecapture.kernel.libbpf cimport *
from ecapture.kernel.room cimport PyObject, new_bytes, shortened

import os


cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <linux/perf_event.h>
    #include <stdarg.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Of union bpf_attr, the members that libbpf 1.1 has no wrapper for (UAPI linux/bpf.h, Linux 6.6). */
    struct ec_link_create {
        __u32 prog_fd, target_fd, attach_type, flags;
        __u64 path, offsets, ref_ctr_offsets, cookies;
        __u32 count, multi_flags, pid, pad;
    };
    struct ec_map_create { __u32 map_type, key_size, value_size, max_entries; };
    struct ec_prog_load {
        __u32 prog_type, insn_cnt;
        __u64 insns, license;
        __u32 log_level, log_size;
        __u64 log_buf;
        __u32 kern_version, prog_flags;
        char name[16];
        __u32 ifindex, expected_attach_type;
        __u8 rest[88];
    };

    static long ec_bpf(int command, void *attr, unsigned size) { return syscall(__NR_bpf, command, attr, size); }

    /* PERF_RECORD_MMAP2 of everything that is mapped executable on one CPU, with build ids (Linux 5.12) or without. */
    static int ec_perf_open(int cpu, int with_build_id) {
        /* "sample_id_all": every record ends with what "sample_type" names */
        struct perf_event_attr attr = {
            .size = sizeof(attr), .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_DUMMY,
            .mmap = 1, .mmap2 = 1, .build_id = with_build_id,
            .watermark = 1, .wakeup_watermark = 1,
            .sample_type = PERF_SAMPLE_TIME, .sample_id_all = 1, .use_clockid = 1, .clockid = CLOCK_MONOTONIC,
        };
        return syscall(__NR_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    }

    #define ec_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define ec_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

    /* The caller frees. A verifier's log can have megabytes. */
    static char *ec_format(const char *text, va_list arguments) {
        char *line = NULL;
        return vasprintf(&line, text, arguments) < 0 ? NULL : line;
    }
    """
    cdef struct ec_link_create:
        uint32_t prog_fd, target_fd, attach_type, flags
        uint64_t path, offsets, ref_ctr_offsets, cookies
        uint32_t count, multi_flags, pid, pad
    cdef struct ec_map_create:
        uint32_t map_type, key_size, value_size, max_entries
    cdef struct ec_prog_load:
        uint32_t prog_type, insn_cnt
        uint64_t insns, license
        uint32_t log_level, log_size
        uint64_t log_buf
        uint32_t kern_version, prog_flags
        uint32_t ifindex, expected_attach_type
    long ec_bpf(int command, void *attr, unsigned size) nogil
    int ec_perf_open(int cpu, int with_build_id) nogil
    uint64_t ec_load_acquire(void *pointer) nogil
    uint32_t ec_load_acquire32 "ec_load_acquire"(uint32_t *pointer) nogil
    uint64_t ec_load_acquire64 "ec_load_acquire"(uint64_t *pointer) nogil
    void ec_store_release(uint64_t *pointer, uint64_t value) nogil
    char *ec_format(const char *text, va_list arguments) nogil

    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset) nogil
    int munmap(void *address, size_t length) nogil
    int PROT_READ, PROT_WRITE, MAP_SHARED
    void *MAP_FAILED
    int c_close "close"(int fd) nogil
    int PERF_RECORD_MMAP2, PERF_RECORD_LOST, PERF_RECORD_MISC_MMAP_BUILD_ID
    cdef struct perf_event_mmap_page:
        uint64_t data_head, data_tail, data_offset, data_size


cdef enum:
    MAP_CREATE = 0
    PROG_LOAD = 5
    LINK_CREATE = 28
    UPROBE_MULTI = 48  # BPF_TRACE_UPROBE_MULTI, Linux 6.6


class NativeError(OSError):
    def __init__(self, operation, subject, int code):
        super().__init__(code, os.strerror(code), subject)
        self.operation = operation
        self.subject = subject


_messages = deque(maxlen=4000)


cdef int _on_message(libbpf_print_level level, const char *text, va_list arguments) noexcept with gil:
    if level == LIBBPF_DEBUG:
        return 0
    cdef char *line = ec_format(text, arguments)
    if line:
        _messages.append((<int>level, line.decode("utf-8", "replace").rstrip()))
        free(line)
    return 0


libbpf_set_print(_on_message)


def take_messages():
    taken = list(_messages)
    _messages.clear()
    return taken


cdef class Map:
    # Closed with the object that it belongs to: its descriptor number may then be another file's.
    cdef readonly int fd
    cdef readonly str name
    cdef readonly uint32_t key_size, value_size, max_entries
    cdef Object _owner

    def lookup(self, bytes key):
        self._check(key, self.key_size, "key")
        value = PyBytes_FromStringAndSize(NULL, self.value_size)
        if bpf_map_lookup_elem(self.fd, <char *>key, PyBytes_AS_STRING(value)):
            if errno == ENOENT:
                return None
            raise NativeError("lookup", self.name, errno)
        return value

    def update(self, bytes key, bytes value):
        self._check(key, self.key_size, "key")
        self._check(value, self.value_size, "value")
        if bpf_map_update_elem(self.fd, <char *>key, <char *>value, 0):
            raise NativeError("update", self.name, errno)

    def delete(self, bytes key):
        self._check(key, self.key_size, "key")
        if bpf_map_delete_elem(self.fd, <char *>key) and errno != ENOENT:
            raise NativeError("delete", self.name, errno)

    def keys(self):
        self._owner._check_open()
        found = []
        previous = None
        while True:
            following = PyBytes_FromStringAndSize(NULL, self.key_size)
            if bpf_map_get_next_key(self.fd, NULL if previous is None else <void *><char *>previous,
                                    PyBytes_AS_STRING(following)):
                return found
            found.append(following)
            previous = following
            if len(found) > 2 * self.max_entries:  # keys vanish while we walk: the walk starts over
                return found

    cdef _check(self, bytes given, uint32_t size, str what):
        self._owner._check_open()
        if len(given) != size:
            raise ValueError(f"{self.name}: {what} has {len(given)} bytes, not {size}")


cdef class Link:
    cdef bpf_link *_link
    cdef int _fd

    def __cinit__(self):
        self._link = NULL
        self._fd = -1

    def close(self):
        cdef bpf_link *link = self._link
        cdef int fd = self._fd
        self._link = NULL
        self._fd = -1
        with nogil:
            if link:
                bpf_link__destroy(link)
            if fd >= 0:
                c_close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __dealloc__(self):
        if self._link:
            bpf_link__destroy(self._link)
        if self._fd >= 0:
            c_close(self._fd)


cdef Link _own_link(bpf_link *link, str operation, str subject):
    cdef long error = libbpf_get_error(link)
    if error or not link:
        raise NativeError(operation, subject, -error if error else errno)
    wrapped = Link()
    wrapped._link = link
    return wrapped


cdef class Object:
    cdef bpf_object *_object
    cdef readonly str path

    def __cinit__(self, str path, btf_path=None):
        cdef bpf_object_open_opts opts
        memset(&opts, 0, sizeof(opts))
        opts.sz = sizeof(opts)
        encoded = os.fsencode(path)
        encoded_btf = None if btf_path is None else os.fsencode(btf_path)
        if encoded_btf is not None:
            opts.btf_custom_path = <char *>encoded_btf
        self.path = path
        self._object = bpf_object__open_file(encoded, &opts)
        cdef long error = libbpf_get_error(self._object)
        if error or not self._object:
            self._object = NULL
            raise NativeError("open", path, -error if error else errno)

    cdef bpf_program *_program(self, str name) except NULL:
        self._check_open()
        cdef bpf_program *program = bpf_object__find_program_by_name(self._object, name.encode())
        if not program:
            raise KeyError(name)
        return program

    cdef bpf_map *_map(self, str name) except NULL:
        self._check_open()
        cdef bpf_map *entry = bpf_object__find_map_by_name(self._object, name.encode())
        if not entry:
            raise KeyError(name)
        return entry

    cdef _check_open(self):
        if not self._object:
            raise ValueError("closed")

    def programs(self):
        self._check_open()
        names = []
        cdef bpf_program *program = bpf_object__next_program(self._object, NULL)
        while program:
            names.append(bpf_program__name(program).decode())
            program = bpf_object__next_program(self._object, program)
        return names

    def maps(self):
        self._check_open()
        names = []
        cdef bpf_map *entry = bpf_object__next_map(self._object, NULL)
        while entry:
            names.append(bpf_map__name(entry).decode())
            entry = bpf_object__next_map(self._object, entry)
        return names

    def set_autoload(self, str program, bint wanted):
        bpf_program__set_autoload(self._program(program), wanted)

    def set_attach_type(self, str program, int attach_type):
        bpf_program__set_expected_attach_type(self._program(program), attach_type)

    def set_map_size(self, str name, uint32_t entries):
        cdef bpf_map *entry = self._map(name)
        cdef int result = bpf_map__set_max_entries(entry, entries)
        if result:
            raise NativeError("resize", name, -result)

    def reuse_map(self, str name, Map other not None):
        other._owner._check_open()
        cdef bpf_map *entry = self._map(name)
        cdef int result = bpf_map__reuse_fd(entry, other.fd)
        if result:
            raise NativeError("reuse", name, -result)

    def load(self):
        self._check_open()
        cdef int result
        with nogil:
            result = bpf_object__load(self._object)
        if result:
            raise NativeError("load", self.path, -result)

    def map(self, str name):
        cdef bpf_map *entry = self._map(name)
        found = Map()
        found.fd = bpf_map__fd(entry)
        found.name = name
        found.key_size = bpf_map__key_size(entry)
        found.value_size = bpf_map__value_size(entry)
        found.max_entries = bpf_map__max_entries(entry)
        found._owner = self
        return found

    def attach(self, str program):
        return _own_link(bpf_program__attach(self._program(program)), "attach", program)

    def attach_uprobe(self, str program, str path, uint64_t offset, int pid=-1, bint at_return=False,
                      uint64_t cookie=0):
        cdef bpf_uprobe_opts opts
        memset(&opts, 0, sizeof(opts))
        opts.sz = sizeof(opts)
        opts.bpf_cookie = cookie
        opts.retprobe = at_return
        encoded = os.fsencode(path)
        return _own_link(bpf_program__attach_uprobe_opts(self._program(program), pid, encoded, offset, &opts), "attach",
                         path)

    def program_fd(self, str program):
        return bpf_program__fd(self._program(program))

    def attach_uprobe_multi(self, str program, str path, offsets, cookies=None, int pid=0, bint at_return=False):
        return link_uprobe_multi(self.program_fd(program), path, offsets, cookies, pid, at_return)

    def close(self):
        if self._object:
            bpf_object__close(self._object)
            self._object = NULL

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __dealloc__(self):
        if self._object:
            bpf_object__close(self._object)


def link_uprobe_multi(int program_fd, str path, offsets, cookies=None, int pid=0, bint at_return=False):
    cdef ec_link_create attr
    cdef list places = list(offsets)
    cdef list values = [0] * len(places) if cookies is None else list(cookies)
    cdef size_t count = len(places)
    if len(values) != len(places):
        raise ValueError(f"{len(values)} cookies for {len(places)} places")
    cdef uint64_t *table = <uint64_t *>malloc(2 * count * sizeof(uint64_t) + 16)
    if not table:
        raise MemoryError
    encoded = os.fsencode(path)
    cdef long fd
    cdef size_t i
    try:
        for i in range(count):
            table[i] = places[i]
            table[count + i] = values[i]
        memset(&attr, 0, sizeof(attr))
        attr.prog_fd = program_fd
        attr.attach_type = UPROBE_MULTI
        attr.path = <uint64_t><char *>encoded
        attr.offsets = <uint64_t>table
        attr.cookies = <uint64_t>(table + count) if cookies is not None else 0
        attr.count = count
        attr.multi_flags = 1 if at_return else 0
        attr.pid = pid
        with nogil:
            fd = ec_bpf(LINK_CREATE, &attr, sizeof(attr) - 4)
        if fd < 0:
            raise NativeError("attach", path, errno)
    finally:
        free(table)
    wrapped = Link()
    wrapped._fd = fd
    return wrapped


def load_program(int program_type, bytes instructions, int attach_type=0):
    cdef ec_prog_load attr
    memset(&attr, 0, sizeof(attr))
    attr.prog_type = program_type
    attr.insns = <uint64_t><char *>instructions
    attr.insn_cnt = len(instructions) // 8
    license = b"Dual BSD/GPL"
    attr.license = <uint64_t><char *>license
    attr.expected_attach_type = attach_type
    # Older kernels refuse a longer structure only if its unknown part is not zero.
    cdef long fd = ec_bpf(PROG_LOAD, &attr, 72)
    if fd < 0:
        raise NativeError("load", f"program type {program_type}", errno)
    return fd


def create_map(int map_type, uint32_t key_size, uint32_t value_size, uint32_t entries):
    cdef ec_map_create attr
    memset(&attr, 0, sizeof(attr))
    attr.map_type = map_type
    attr.key_size = key_size
    attr.value_size = value_size
    attr.max_entries = entries
    cdef long fd = ec_bpf(MAP_CREATE, &attr, sizeof(attr))
    if fd < 0:
        raise NativeError("create", f"map type {map_type}", errno)
    return fd


cdef class Ring:
    # kernel/bpf/ringbuf.c: two positions that only grow, and records, each behind eight bytes whose first word is its
    # length with a busy and a discard bit.
    cdef readonly int fd
    cdef readonly size_t size
    cdef readonly bint more
    cdef uint64_t *_consumer
    cdef uint8_t *_producer  # the page of the producer's position, then the data once
    cdef size_t _page, _length_at, _align
    cdef object _map

    def __cinit__(self, Map ring not None, size_t length_at=8, size_t align=8):
        self._length_at, self._align = length_at, align
        self._page = os.sysconf("SC_PAGE_SIZE")
        self.size = ring.max_entries
        self.fd = ring.fd
        self._map = ring
        self._consumer = <uint64_t *>mmap(NULL, self._page, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0)
        if self._consumer == MAP_FAILED:
            self._consumer = NULL
            raise NativeError("map", ring.name, errno)
        # The kernel offers the data twice in a row for records that wrap; mapping it once halves our memory.
        self._producer = <uint8_t *>mmap(NULL, self._page + self.size, PROT_READ, MAP_SHARED, ring.fd, self._page)
        if self._producer == MAP_FAILED:
            self._producer = NULL
            raise NativeError("map", ring.name, errno)

    def pending(self):
        if not self._producer:
            raise ValueError("closed")
        return ec_load_acquire64(<uint64_t *>self._producer) - self._consumer[0]

    def drain(self, size_t limit, size_t records=<size_t>-1):
        if not self._producer:
            raise ValueError("closed")
        self.more = False
        cdef uint64_t at = self._consumer[0]
        cdef uint64_t available = ec_load_acquire64(<uint64_t *>self._producer) - at
        if available == 0:
            return b""
        if available > limit:
            available = limit
        cdef PyObject *batch = new_bytes(NULL, available)
        cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(<bytes>batch)
        cdef size_t used
        with nogil:
            used = self._copy(out, available, records)
        return shortened(batch, used)

    cdef size_t _copy(self, uint8_t *out, size_t room, size_t records) noexcept nogil:
        cdef uint64_t mask = self.size - 1, at = self._consumer[0], end = ec_load_acquire64(<uint64_t *>self._producer)
        cdef uint8_t *ring = self._producer + self._page
        cdef size_t used = 0, reserved, record, padded, start, first
        cdef uint32_t word, true_size
        while at < end:
            word = ec_load_acquire32(<uint32_t *>(ring + (at & mask)))
            if word >> 31:  # busy: still being written
                break
            reserved = word & 0x3FFFFFFF
            if not (word >> 30) & 1:  # not discarded
                start = (at + 8) & mask
                true_size = (<uint32_t *>(ring + ((start + self._length_at) & mask)))[0]
                record = true_size if true_size <= reserved else reserved
                padded = (record + self._align - 1) & ~(self._align - 1)
                if used + padded > room or not records:
                    self.more = True
                    break
                records -= 1
                first = min(record, self.size - start)
                memcpy(out + used, ring + start, first)
                memcpy(out + used + first, ring, record - first)
                memset(out + used + record, 0, padded - record)
                used += padded
            at += (reserved + 8 + 7) & ~<uint64_t>7
            ec_store_release(self._consumer, at)
        return used

    def close(self):
        if self._consumer:
            munmap(self._consumer, self._page)
            self._consumer = NULL
        if self._producer:
            munmap(self._producer, self._page + self.size)
            self._producer = NULL

    def __dealloc__(self):
        self.close()


@cython.no_gc_clear  # the destructor needs its lists
cdef class MapWatch:
    cdef readonly list fds
    cdef readonly bint with_build_ids
    cdef readonly uint64_t lost
    cdef list _pages
    cdef size_t _page, _length

    def __cinit__(self, cpus, size_t pages=64):
        cdef int fd
        cdef void *area
        self.fds = []
        self._pages = []
        self.lost = 0
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._length = self._page * (1 + pages)
        self.with_build_ids = True
        for cpu in cpus:
            fd = ec_perf_open(cpu, self.with_build_ids)
            if fd < 0 and self.with_build_ids and not self.fds:
                self.with_build_ids = False
                fd = ec_perf_open(cpu, False)
            if fd < 0:
                raise NativeError("watch", "executable mappings", errno)
            self.fds.append(fd)
            area = mmap(NULL, self._length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
            if area == MAP_FAILED:
                raise NativeError("watch", "executable mappings", errno)
            self._pages.append(<size_t>area)

    def read(self):
        if not self._pages:
            raise ValueError("closed")
        found = []
        for address in self._pages:
            self._read_one(<perf_event_mmap_page *><size_t>address, found)
        return found

    cdef _read_one(self, perf_event_mmap_page *head, list found):
        cdef uint8_t *ring = <uint8_t *>head + self._page
        cdef size_t size = self._length - self._page
        cdef uint64_t tail = head.data_tail
        cdef uint64_t end = ec_load_acquire64(&head.data_head)
        cdef uint8_t record[65536]
        cdef size_t length, start, first
        while tail < end:
            start = tail % size
            length = (<uint16_t *>(ring + ((start + 6) % size)))[0]
            if length < 8:
                tail = end
                break
            first = size - start
            if first >= length:
                memcpy(record, ring + start, length)
            else:
                memcpy(record, ring + start, first)
                memcpy(record + first, ring, length - first)
            kind = (<uint32_t *>record)[0]
            if kind == PERF_RECORD_MMAP2 and length >= 80:
                found.append(self._mapping(record, length))
            elif kind == PERF_RECORD_LOST and length >= 24:
                self.lost += (<uint64_t *>(record + 16))[0]
            tail += length
        ec_store_release(&head.data_tail, tail)

    cdef tuple _mapping(self, uint8_t *record, size_t length):
        # header 8, pid 4, tid 4, addr 8, len 8, pgoff 8, then 24 bytes of device and inode or of build id
        misc = (<uint16_t *>(record + 4))[0]
        pid = (<uint32_t *>(record + 8))[0]
        address = (<uint64_t *>(record + 16))[0]
        size = (<uint64_t *>(record + 24))[0]
        path = (<char *>(record + 72))[:length - 72].split(b"\0", 1)[0]
        mapped_ns = (<uint64_t *>(record + length - 8))[0]
        build_id = ""
        if misc & PERF_RECORD_MISC_MMAP_BUILD_ID:
            build_id = (<char *>(record + 44))[:min(record[40], 20)].hex()
        return pid, address, size, os.fsdecode(path), build_id, mapped_ns

    def close(self):
        pages, fds = self._pages or (), self.fds or ()
        self._pages, self.fds = [], []
        for address in pages:
            munmap(<void *><size_t>address, self._length)
        for fd in fds:
            c_close(fd)

    def __dealloc__(self):
        self.close()
