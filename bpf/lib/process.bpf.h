/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The processes from which something was captured. */
#ifndef EC_PROCESS_BPF_H
#define EC_PROCESS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* When a process was first captured: what is older belongs to an earlier process of the same number. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} processes SEC(".maps");

/* Something was captured from a process: its end will be told. */
static __always_inline void note_process(__u32 pid, __u64 now)
{
	if (!bpf_map_lookup_elem(&processes, &pid))
		bpf_map_update_elem(&processes, &pid, &now, BPF_NOEXIST);
}

#endif
