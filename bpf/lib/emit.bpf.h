/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Obtain a record, send it, and count what was lost. */
#ifndef EC_EMIT_BPF_H
#define EC_EMIT_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024); /* set anew by user space before loading */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ec_losses);
} losses SEC(".maps");

/* Losses are rare, so one shared row with atomic additions is exact and costs nothing when nothing is lost. */
static __always_inline struct ec_losses *get_losses(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&losses, &zero);
}

/* Adding a constant 0 instead of leaving bytes out would compile to an atomic "or", which kernels before 5.12 refuse. */
#define count_loss(member)                                           \
	({                                                           \
		struct ec_losses *losses_ = get_losses();            \
		if (losses_)                                         \
			__sync_fetch_and_add(&losses_->member, 1);   \
	})

#define count_lost_bytes(member, bytes_member, bytes)                          \
	({                                                                     \
		struct ec_losses *losses_ = get_losses();                      \
		if (losses_) {                                                 \
			__sync_fetch_and_add(&losses_->member, 1);             \
			__sync_fetch_and_add(&losses_->bytes_member, (bytes)); \
		}                                                              \
	})

static __always_inline void fill_header(struct ec_header *header, __u16 kind, __u32 size, __u64 now)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	header->time_ns = now;
	header->size = size;
	header->kind = kind;
	header->flags = 0;
	header->pid = pid_tgid >> 32;
	header->tid = pid_tgid;
	header->uid = bpf_get_current_uid_gid();
	header->cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(header->comm, sizeof(header->comm));
}

/* A wake-up runs in the traced thread and costs more than the record itself, so it is sent only when the reader says
 * that it sleeps, or when this record takes the ring over its wake-up level. Otherwise the reader comes by its timer.
 * "reserved" bytes count, not those that were used of them. */
static __always_inline __u64 wakeup_flags(struct ec_settings *wanted, __u32 reserved)
{
	__u64 available;

	if (wanted->reader_asleep) {
		wanted->reader_asleep = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	available = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	if (available >= wanted->wakeup_level && available - wanted->wakeup_level < ((reserved + 7) & ~7u) + BPF_RINGBUF_HDR_SZ)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

#endif
