/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Sends what a call moved, in pieces, and the end of a conversation. What every object that shows plaintext shares.
 *
 * Invariant: every byte of a call is in a record or in "losses", and the stream offset counts it either way.
 */
#ifndef EC_DELIVER_BPF_H
#define EC_DELIVER_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"
#include "emit.bpf.h"
#include "target.bpf.h"
#include "conversation.bpf.h"
#include "chain.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_HOOKS_MAXIMUM);
	__type(key, __u32);
	__type(value, struct ec_hook);
} hooks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_PARAMETER_ROWS);
	__type(key, __u32);
	__type(value, struct ec_parameter_row);
} parameter_rows SEC(".maps");

/* Reads from the library's object what was negotiated. Once it is known it stays: nothing changes it but a new
 * handshake on the same object. */
static __always_inline void learn_parameters(struct conversation *conversation, __u64 handle, __u32 number)
{
	struct ec_parameter_row *row = bpf_map_lookup_elem(&parameter_rows, &number);

	if (!row || read_number(handle, &row->object_type, 0))
		return;
	conversation->tuple.cipher = read_number(handle, &row->cipher, 0);
	conversation->tuple.version = read_number(handle, &row->version, 0);
}

/* All that the pieces of one call share. */
struct emission {
	struct ec_plaintext head; /* copied in front of every piece; its offsets are those of the call */
	__u64 buffer;
	struct ec_settings *wanted;
};

/*
 * Sends one piece of at most CLASS bytes, which stands at "offset" in its call. A ring record must be reserved with a
 * constant size, so the smallest class that holds the piece is taken; header.size tells the true size and the reader
 * copies no more than that. What lies between is earlier content of this same ring. (A per-CPU buffer would make
 * sizes exact, but probes are preemptible: two threads of one CPU could write to it at once.)
 */
#define SEND(CLASS, offset, bytes)                                                                      \
	do {                                                                                            \
		__u64 length_ = (bytes);                                                                \
		struct ec_plaintext *record_ =                                                          \
			bpf_ringbuf_reserve(&events, sizeof(struct ec_plaintext) + (CLASS), 0);         \
		if (!record_) {                                                                         \
			count_lost_bytes(ring_full_records, ring_full_bytes, length_);                        \
			break;                                                                          \
		}                                                                                       \
		*record_ = emission->head;                                                              \
		record_->header.flags |= flags;                                                         \
		record_->call_offset = (offset);                                                        \
		record_->stream_offset += (offset);                                                     \
		/* the verifier must see the bound on the very register it passes on */                 \
		asm volatile("" : "+r"(length_));                                                       \
		if (length_ > (CLASS))                                                                  \
			length_ = (CLASS);                                                              \
		if (length_ &&                                                                          \
		    bpf_probe_read_user(record_ + 1, length_, (void *)(emission->buffer + (offset)))) { \
			count_lost_bytes(fault_records, fault_bytes, length_);                                \
			record_->header.flags |= EC_FLAG_FAULT;                                         \
			length_ = 0;                                                                    \
		}                                                                                       \
		record_->header.size = sizeof(struct ec_plaintext) + length_;                           \
		bpf_ringbuf_submit(record_, wakeup_flags(wanted, sizeof(struct ec_plaintext) + (CLASS)));        \
	} while (0)

static __always_inline void send_last(struct emission *emission, __u64 offset, __u64 length)
{
	struct ec_settings *wanted = emission->wanted;
	const __u16 flags = EC_FLAG_LAST;

	if (length <= 32)
		SEND(32, offset, length);
	else if (length <= 64)
		SEND(64, offset, length);
	else if (length <= 128)
		SEND(128, offset, length);
	else if (length <= 192)
		SEND(192, offset, length);
	else if (length <= 256)
		SEND(256, offset, length);
	else if (length <= 512)
		SEND(512, offset, length);
	else if (length <= 768)
		SEND(768, offset, length);
	else if (length <= 1024)
		SEND(1024, offset, length);
	else if (length <= 1536)
		SEND(1536, offset, length);
	else if (length <= 2048)
		SEND(2048, offset, length);
	else if (length <= 4096)
		SEND(4096, offset, length);
	else if (length <= 6144)
		SEND(6144, offset, length);
	else if (length <= 8192)
		SEND(8192, offset, length);
	else if (length <= 12288)
		SEND(12288, offset, length);
	else
		SEND(EC_PIECE_MAXIMUM, offset, length);
}

static __always_inline void send_full(struct emission *emission, __u64 index)
{
	struct ec_settings *wanted = emission->wanted;
	const __u16 flags = 0;

	SEND(EC_PIECE_MAXIMUM, index * EC_PIECE_MAXIMUM, EC_PIECE_MAXIMUM);
}

/* The index comes from the helper, not from our stack, so that the verifier sees the same state in every round. */
static long send_full_callback(__u32 index, void *emission)
{
	send_full(emission, index);
	return 0;
}

enum loop { LOOP_BOUNDED, LOOP_HELPER };

/*
 * Without bpf_loop (before 5.17, commit e6f2dd0f8067) a call is delivered up to this many pieces: 16 MiB. The verifier
 * walks every round and gives up after a million instructions, so it must see as little as possible that tells one
 * round, or one way into the loop, from another: hence two functions of their own.
 */
#define BOUNDED_PIECES 1024

/* What the rounds of one thread share, handed over in a map because a global function takes numbers only. It is how a
 * struct emission begins: stack is short where functions call each other (512 bytes for all of them, before 6.13). */
struct rounds {
	struct ec_plaintext head;
	__u64 buffer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* threads that are inside large calls at the same moment */
	__type(key, __u64);
	__type(value, struct rounds);
} rounds SEC(".maps");

static __attribute__((noinline)) int send_full_round(struct rounds *emission, __u64 index)
{
	struct ec_settings *wanted = get_settings();
	const __u16 flags = 0;

	if (wanted)
		SEND(EC_PIECE_MAXIMUM, index * EC_PIECE_MAXIMUM, EC_PIECE_MAXIMUM);
	return 0;
}

/* A global function: the verifier walks its loop once, whatever the paths are that lead here (5.6, commit 51c39bb1d5d1). */
__attribute__((noinline)) int send_bounded(__u32 full)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct rounds *handed = bpf_map_lookup_elem(&rounds, &thread);
	__u32 i;

	if (!handed)
		return 0;
	for (i = 0; i < BOUNDED_PIECES; i++) {
		if (i >= full)
			break;
		send_full_round(handed, i);
	}
	bpf_map_delete_elem(&rounds, &thread);
	return 0;
}

static __always_inline void hand_over(const struct emission *emission, __u32 full)
{
	__u64 thread = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&rounds, &thread, emission, BPF_ANY))
		count_lost_bytes(ring_full_records, ring_full_bytes, (__u64)full * EC_PIECE_MAXIMUM);
	else
		send_bounded(full);
}

/* Delivers a call of call_length bytes: pieces, offsets, limits. */
static __always_inline void deliver(struct emission *emission, struct conversation *conversation,
				    __u64 call_length, enum loop loop)
{
	struct ec_plaintext *head = &emission->head;
	__u64 limit = emission->wanted->payload_limit;
	__u64 kept = call_length < limit ? call_length : limit;
	__u64 full, rest;

	head->stream_offset = conversation->offset[head->direction & 1];
	head->call_length = call_length;
	if (loop == LOOP_BOUNDED && kept > (__u64)BOUNDED_PIECES * EC_PIECE_MAXIMUM)
		kept = (__u64)BOUNDED_PIECES * EC_PIECE_MAXIMUM;
	if (head->header.flags & EC_FLAG_SENDFILE) {
		kept = 0;
	} else if (kept < call_length) {
		head->header.flags |= EC_FLAG_TRUNCATED;
		count_lost_bytes(truncated_calls, truncated_bytes, call_length - kept);
	}
	conversation->offset[head->direction & 1] += call_length;
	conversation->emitted_ns[head->direction & 1] = head->header.time_ns;

	/* all pieces but the last are full; the last has 1 to EC_PIECE_MAXIMUM bytes, or none of an empty call */
	full = kept ? (kept - 1) / EC_PIECE_MAXIMUM : 0;
	if (loop == LOOP_HELPER) {
		if (full)
			bpf_loop(full, send_full_callback, emission, 0);
	} else {
		if (full)
			hand_over(emission, full);
	}
	rest = kept - full * EC_PIECE_MAXIMUM;
	send_last(emission, full * EC_PIECE_MAXIMUM, rest);
}

static __always_inline void begin_emission(struct emission *emission, const struct conversation_key *key,
					   struct conversation *conversation, const struct ec_hook *hook,
					   __u32 hook_row, __u64 now)
{
	struct ec_plaintext *head = &emission->head;

	if (!has_tuple(conversation) && conversation->fd >= 0)
		read_descriptor(&conversation->tuple, conversation->fd);
	fill_header(&head->header, EC_KIND_PLAINTEXT, 0, now);
	if (hook->flags & EC_HOOK_NO_BUFFER)
		head->header.flags |= EC_FLAG_SENDFILE;
	head->handle = key->handle;
	head->generation = conversation->generation;
	head->tuple = conversation->tuple;
	head->fd = conversation->fd;
	head->direction = hook->direction & 1;
	head->hook = hook_row;
	__builtin_memset(head->_padding, 0, sizeof(head->_padding));
}

/*
 * void SSL_free(SSL *ssl): the handle is no longer this conversation's. int SSL_clear(SSL *ssl): the next conversation
 * begins on the same handle; OpenSSL also calls it itself when a handshake begins, before there was anything to end.
 */
static __always_inline int end_conversation(const struct conversation_key *who, struct ec_settings *wanted, __u8 flags)
{
	struct conversation *conversation = bpf_map_lookup_elem(&conversations, who);
	struct ec_tuple_value unknown = {};
	struct ec_end *record;
	__u64 generation;
	int silent;

	if (!conversation)
		return 0;
	generation = conversation->generation;
	silent = !conversation->offset[0] && !conversation->offset[1];
	if (!(flags & EC_HOOK_KEEPS)) {
		bpf_map_delete_elem(&conversations, who);
	} else if (!silent) {
		conversation->generation = bpf_ktime_get_boot_ns();
		conversation->offset[0] = conversation->offset[1] = 0;
		conversation->tuple = unknown;
	}
	if (silent)
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		count_loss(end_records);
		return 0;
	}
	fill_header(&record->header, EC_KIND_END, sizeof(*record), bpf_ktime_get_boot_ns());
	record->handle = who->handle;
	record->generation = generation;
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 0;
}

#endif
