# SPDX-License-Identifier: Apache-2.0
# Declarations of libbpf 1.1 (Debian 12) and later, in the order of its headers, and nothing else.
from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t


cdef extern from "<stdarg.h>" nogil:
    ctypedef struct va_list:
        pass


cdef extern from "<bpf/bpf.h>" nogil:
    struct bpf_insn:
        pass

    int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags)
    int bpf_map_lookup_elem(int fd, const void *key, void *value)
    int bpf_map_delete_elem(int fd, const void *key)
    int bpf_map_get_next_key(int fd, const void *key, void *next_key)


cdef extern from "<bpf/libbpf.h>" nogil:
    enum libbpf_print_level:
        LIBBPF_WARN
        LIBBPF_INFO
        LIBBPF_DEBUG

    ctypedef int (*libbpf_print_fn_t)(libbpf_print_level level, const char *text, va_list arguments) noexcept
    libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t callback)

    struct bpf_object:
        pass
    struct bpf_program:
        pass
    struct bpf_map:
        pass
    struct bpf_link:
        pass

    struct bpf_object_open_opts:
        size_t sz
        const char *object_name
        const char *btf_custom_path

    bpf_object *bpf_object__open_file(const char *path, const bpf_object_open_opts *opts)
    int bpf_object__load(bpf_object *obj)
    void bpf_object__close(bpf_object *obj)
    bpf_program *bpf_object__find_program_by_name(const bpf_object *obj, const char *name)
    bpf_program *bpf_object__next_program(const bpf_object *obj, bpf_program *prog)
    bpf_map *bpf_object__find_map_by_name(const bpf_object *obj, const char *name)
    bpf_map *bpf_object__next_map(const bpf_object *obj, const bpf_map *map)

    const char *bpf_program__name(const bpf_program *prog)
    int bpf_program__set_autoload(bpf_program *prog, bint autoload)
    int bpf_program__set_expected_attach_type(bpf_program *prog, int type)
    int bpf_program__fd(const bpf_program *prog)
    bpf_link *bpf_program__attach(const bpf_program *prog)

    struct bpf_uprobe_opts:
        size_t sz
        size_t ref_ctr_offset
        uint64_t bpf_cookie
        bint retprobe
        const char *func_name

    bpf_link *bpf_program__attach_uprobe_opts(const bpf_program *prog, int pid, const char *path, size_t offset,
                                              const bpf_uprobe_opts *opts)
    int bpf_link__destroy(bpf_link *link)

    const char *bpf_map__name(const bpf_map *map)
    int bpf_map__fd(const bpf_map *map)
    int bpf_map__set_max_entries(bpf_map *map, uint32_t max_entries)
    int bpf_map__reuse_fd(bpf_map *map, int fd)
    uint32_t bpf_map__key_size(const bpf_map *map)
    uint32_t bpf_map__value_size(const bpf_map *map)
    uint32_t bpf_map__max_entries(const bpf_map *map)

    long libbpf_get_error(const void *pointer)
