/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Begins the record of a secret: whose it is, its client random, its label. What every object that shows keys shares.
 *
 * Where the fields stand in the objects of a file is its row in "secret_rows"; the attach cookie is the row.
 */
#ifndef EC_SECRET_BPF_H
#define EC_SECRET_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"
#include "emit.bpf.h"
#include "conversation.bpf.h"
#include "chain.bpf.h"

#define PAGE_MASK 0xfff /* the smallest page; a larger one has the same low bits */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_SECRET_ROWS);
	__type(key, __u32);
	__type(value, struct ec_secret_row);
} secret_rows SEC(".maps");

static __always_inline __u64 generation_of(const struct conversation_key *who, __u64 now)
{
	struct conversation *conversation = get_conversation(who, now);

	return conversation ? conversation->generation : now;
}

static __always_inline __u8 label_by_place(const struct ec_secret_row *row, __u64 label)
{
	__u32 i;

	for (i = 0; i < EC_LABEL_PLACES; i++) {
		if (row->label_number[i] && row->label_place[i] == (label & PAGE_MASK))
			return row->label_number[i];
	}
	return EC_LABEL_UNKNOWN;
}

/* Begins a record; all but label, secret and length is filled. */
static __always_inline struct ec_secret *begin_secret(const struct conversation_key *who,
						      const struct ec_secret_row *row)
{
	struct ec_secret *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	__u64 now = bpf_ktime_get_boot_ns();

	if (!record) {
		count_lost_bytes(ring_full_records, ring_full_bytes, sizeof(*record));
		return NULL;
	}
	__builtin_memset(record, 0, sizeof(*record));
	fill_header(&record->header, EC_KIND_SECRET, sizeof(*record), now);
	record->handle = who->handle;
	record->generation = generation_of(who, now);
	if (read_field(record->client_random, sizeof(record->client_random), who->handle, &row->client_random))
		record->header.flags |= EC_FLAG_UNJOINED;
	return record;
}

#endif
