// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Secrets that a program tells together with their client random, so that no object of a library need be known.
 *
 *   func (c *Config) writeKeyLog(label string, clientRandom, secret []byte) error
 *       Go's crypto/tls: called with every secret, whether or not there is a KeyLogWriter
 *   fn log(&self, label: &str, client_random: &[u8], secret: &[u8]), fn will_log(&self, label: &str) -> bool
 *       rustls' trait KeyLog: the call of the first, of TLS 1.2, which is always made; and the instruction behind a call
 *       of the second, which stands before every call of the first in TLS 1.3
 *
 * Which register or word of the stack has what is the row of the place in "told_rows"; the attach cookie is the row.
 * So the calling convention, the machine, and what a compiler did with the code are all matters of user space.
 *
 * Invariants
 * 1. A secret goes out whole or not at all. One that could not be read, and one that does not look like a secret of
 *    TLS where it should, is counted.
 * 2. A label is the text in the program, or is known by its place in its page: the text need not be in memory, since
 *    nobody reads it without a key log, and a probe cannot wait for a page.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"

#define PAGE_MASK 0xfff /* the smallest page; a larger one has the same low bits */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_TOLD_ROWS);
	__type(key, __u32);
	__type(value, struct ec_told_row);
} told_rows SEC(".maps");

static __always_inline long value_of(__u64 *value, const struct pt_regs *regs, const struct ec_operand *operand)
{
	__u32 word = operand->word;

	if (word == EC_OPERAND_CONSTANT) {
		*value = operand->first;
		return 0;
	}
	if (word >= sizeof(*regs) / sizeof(__u64))
		return -1;
	/* by a helper, since the verifier allows no computed offset into the registers */
	if (bpf_probe_read_kernel(value, sizeof(*value), (void *)regs + word * sizeof(__u64)))
		return -1;
	*value += operand->first;
	if (operand->loads > 0) {
		if (bpf_probe_read_user(value, sizeof(*value), (void *)*value))
			return -1;
		*value += operand->second;
	}
	if (operand->loads > 1) {
		if (bpf_probe_read_user(value, sizeof(*value), (void *)*value))
			return -1;
		*value += operand->third;
	}
	return 0;
}

/* The bytes that a pointer and a length in the program mean, at most "room" of them. */
#define read_part(to, room, regs, pointer, length)                                                  \
	({                                                                                          \
		__u64 at_ = 0, length_ = 0;                                                         \
		long failed_ = -1;                                                                  \
		if (!value_of(&at_, regs, pointer) && !value_of(&length_, regs, length) && length_ && \
		    length_ <= (room)) {                                                            \
			/* the verifier must see the bound on the very register it passes on */     \
			asm volatile("" : "+r"(length_));                                           \
			if (length_ > (room))                                                       \
				length_ = (room);                                                   \
			failed_ = bpf_probe_read_user(to, length_, (void *)at_);                    \
		}                                                                                   \
		failed_ ? 0 : length_;                                                              \
	})

static __always_inline __u8 label_by_place(const struct ec_told_row *row, __u64 label)
{
	__u32 i;

	for (i = 0; i < EC_LABEL_PLACES; i++) {
		if (row->label_number[i] && row->label_place[i] == (label & PAGE_MASK))
			return row->label_number[i];
	}
	return EC_LABEL_UNKNOWN;
}

static __always_inline void fill_label(struct ec_secret *record, const struct pt_regs *regs,
				       const struct ec_told_row *row)
{
	__u64 label = 0;

	/* a constant is not an address in the program, only a place in its page */
	if (row->label.word == EC_OPERAND_CONSTANT ||
	    !read_part(record->label, EC_LABEL_LENGTH - 1, regs, &row->label, &row->label_length))
		record->label[0] = 0;
	if (!value_of(&label, regs, &row->label))
		record->label_number = label_by_place(row, label);
}

static __always_inline int tell_secret(struct pt_regs *regs, __u32 number)
{
	struct ec_told_row *row = bpf_map_lookup_elem(&told_rows, &number);
	struct ec_settings *wanted = get_settings();
	struct ec_secret *record;
	__u64 random;

	if (!row || !wanted || !is_target(wanted, bpf_get_current_pid_tgid() >> 32))
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		count_lost_bytes(ring_full_records, ring_full_bytes, sizeof(*record));
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	fill_header(&record->header, EC_KIND_SECRET, sizeof(*record), bpf_ktime_get_boot_ns());
	fill_label(record, regs, row);
	random = read_part(record->client_random, EC_RANDOM_LENGTH, regs, &row->random, &row->random_length);
	record->length = read_part(record->secret, EC_SECRET_MAXIMUM, regs, &row->secret, &row->secret_length);
	if (random != EC_RANDOM_LENGTH)
		record->header.flags |= EC_FLAG_UNJOINED | EC_FLAG_FAULT;
	if (!record->length)
		record->header.flags |= EC_FLAG_FAULT;
	if (record->header.flags & EC_FLAG_FAULT)
		count_lost_bytes(fault_records, fault_bytes, sizeof(record->secret));
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 0;
}

SEC("uprobe")
int secret_told(struct pt_regs *regs)
{
	return tell_secret(regs, bpf_get_attach_cookie(regs));
}

/* Kernels without attach cookies (before 5.15, commit 7adfc6c9b315): one program for each of the first rows. */
#define TOLD_SLOT(N)                                            \
	SEC("uprobe") int secret_told_##N(struct pt_regs *regs) \
	{                                                       \
		return tell_secret(regs, N);                    \
	}
TOLD_SLOT(0)
TOLD_SLOT(1)
TOLD_SLOT(2)
TOLD_SLOT(3)
TOLD_SLOT(4)
TOLD_SLOT(5)
TOLD_SLOT(6)
TOLD_SLOT(7)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
