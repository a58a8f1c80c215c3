/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The 4-tuple of a conversation whose library never touches a socket (memory BIOs: Node.js, asyncio, gRPC): the program
 * itself sends what the library made, and hands it what it received. Nothing names the socket, so it is inferred, and a
 * wrong one is worse than none. All of this must hold:
 *
 * 1. The socket call is the very next one of the thread: for a write the next send after it, for a read the last receive
 *    before it, with no TLS call of another conversation in between.
 * 2. It is a connected TCP socket, and what was sent or received begins with a record of TLS (RFC 8446, 5.1).
 * 3. The size fits. A record has 16, 17 or 24 bytes more than what was written into it (RFC 7905, 8446, 5288; with CBC,
 *    which pads, nothing is inferred) and a header of 5. A send of one record must fit exactly, one of several within
 *    these bounds; in front of a connection's first bytes may stand the rest of the handshake. A read must have taken a
 *    record whole.
 * 4. No other conversation that is still open has the same 4-tuple.
 *
 * What was learned is told to user space as a record of its own, for the bytes that were shown before it was known.
 */
#ifndef EC_INFERRED_BPF_H
#define EC_INFERRED_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "../wire.h"
#include "conversation.bpf.h"
#include "emit.bpf.h"
#include "registers.bpf.h"
#include "target.bpf.h"

enum {
	FITTING_NS = 1000000000, /* a socket call later than that belongs to something else */
	RECORD_PLAIN = 16384,	 /* RFC 8446, 5.1 */
	RECORD_LONGEST = 16384 + 256 + 1,
	RECORD_HEADER = 5,
	RECORDS = 4, /* of one receive: the end of the handshake may stand before the first bytes */
	OVERHEAD_LEAST = 16 + RECORD_HEADER,
	OVERHEAD_MOST = 24 + RECORD_HEADER,
	HANDSHAKE_REST = 640, /* of a client: key exchange and Finished; of a server: two tickets */
	STREAM = 1,	      /* SOCK_STREAM */
};

/* What a thread wrote since its last send. */
struct unsent {
	struct conversation_key who;
	__u64 time_ns;
	__u64 bytes;
	__u64 records;
	__u64 rest; /* what of the handshake may be sent with it */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct unsent);
} unsent SEC(".maps");

/* What a thread received last. Only for threads whose TLS calls were seen to make no socket calls. */
struct received {
	struct conversation_key who; /* who made the first TLS call since */
	struct ec_tuple_value tuple;
	__u64 time_ns;
	__u32 records[RECORDS]; /* what its first records say they have; 0: none, or read already */
	__u32 taken;		/* not 0: a TLS call was made since */
	__u32 _padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct received);
} received SEC(".maps");

struct claim {
	struct conversation_key who;
	__u64 generation;
};

/* Whose an inferred 4-tuple is. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct ec_tuple_value);
	__type(value, struct claim);
} claims SEC(".maps");

/* The numbers of the system calls that end in a socket, with a buffer, with vectors, with a message. */
#if defined(__TARGET_ARCH_x86)
#define SYSCALL_NUMBER orig_ax
enum { CALL_WRITE = 1, CALL_READ = 0, CALL_WRITEV = 20, CALL_READV = 19 };
enum { CALL_SENDTO = 44, CALL_RECVFROM = 45, CALL_SENDMSG = 46, CALL_RECVMSG = 47 };
#else
#define SYSCALL_NUMBER regs[8]
enum { CALL_WRITE = 64, CALL_READ = 63, CALL_WRITEV = 66, CALL_READV = 65 };
enum { CALL_SENDTO = 206, CALL_RECVFROM = 207, CALL_SENDMSG = 211, CALL_RECVMSG = 212 };
#endif

/* The address of the bytes that this system call sends or has received; 0 if it cannot be told. */
static __always_inline __u64 buffer_of_call(void)
{
	struct pt_regs *saved = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct pt_regs regs;
	__u64 place;

	if (bpf_probe_read_kernel(&regs, sizeof(regs), saved))
		return 0;
	place = regs.REGISTER_1;
	switch (regs.SYSCALL_NUMBER) {
	case CALL_WRITE:
	case CALL_READ:
	case CALL_SENDTO:
	case CALL_RECVFROM:
		break;
	case CALL_SENDMSG:
	case CALL_RECVMSG:
		/* struct user_msghdr: a name, its length, then the vectors */
		if (bpf_probe_read_user(&place, sizeof(place), (void *)(place + 16)))
			return 0;
		/* fall through */
	case CALL_WRITEV:
	case CALL_READV:
		if (bpf_probe_read_user(&place, sizeof(place), (void *)place))
			return 0;
		break;
	default:
		return 0;
	}
	return place;
}

/* The length that a record here states; 0 if there is none. */
static __always_inline __u32 record_at(__u64 place)
{
	__u8 header[RECORD_HEADER] = {};
	__u32 length;

	if (!place || bpf_probe_read_user(header, sizeof(header), (void *)place))
		return 0;
	length = (__u32)header[3] << 8 | header[4];
	if (header[0] < 20 || header[0] > 23 || header[1] != 3 || header[2] > 4 || length > RECORD_LONGEST)
		return 0;
	return length;
}

/* By how much a record is longer than its content. */
static __always_inline int is_overhead(__u64 more)
{
	return more == 16 || more == 17 || more == 24;
}

static __always_inline int same_conversation(const struct conversation_key *one, const struct conversation_key *other)
{
	return one->handle == other->handle && one->pid == other->pid;
}

/* Gives the conversation this 4-tuple, unless another that is still open has it. */
static __always_inline void claim_tuple(const struct conversation_key *who, struct conversation *conversation,
					const struct ec_tuple_value *tuple)
{
	struct claim *known = bpf_map_lookup_elem(&claims, tuple);
	struct claim own = { .who = *who, .generation = conversation->generation };

	if (known && (!same_conversation(&known->who, who) || known->generation != own.generation)) {
		struct conversation_key theirs = known->who;
		struct conversation *other = bpf_map_lookup_elem(&conversations, &theirs);

		if (other && other->generation == known->generation)
			return;
	}
	bpf_map_update_elem(&claims, tuple, &own, BPF_ANY);
	__builtin_memcpy(&conversation->tuple, tuple, offsetof(struct ec_tuple_value, version));
}

static __always_inline void tell_ends(const struct conversation_key *who, const struct conversation *conversation)
{
	struct ec_settings *wanted = get_settings();
	struct ec_ends *record;

	if (!wanted || (!conversation->offset[0] && !conversation->offset[1]))
		return; /* nothing was told without it */
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record)
		return; /* what was told already stays without addresses; no byte is lost */
	fill_header(&record->header, EC_KIND_ENDS, sizeof(*record), bpf_ktime_get_boot_ns());
	record->handle = who->handle;
	record->generation = conversation->generation;
	record->tuple = conversation->tuple;
	__builtin_memset(record->_padding, 0, sizeof(record->_padding));
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
}

static __always_inline int stream_tuple(struct ec_tuple_value *tuple, const struct sock *sk)
{
	if (BPF_CORE_READ(sk, sk_type) != STREAM)
		return 0;
	read_socket(tuple, sk, EC_TUPLE_INFERRED);
	return tuple->source == EC_TUPLE_INFERRED;
}

/*
 * --- at TLS calls of conversations without 4-tuple ---
 *
 * Functions of their own: what they keep on the stack must not add to that of the program and of its bounded loop, which
 * share 512 bytes before 6.13.
 */

static __always_inline void note_call(const struct conversation_key *who)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct received *last = bpf_map_lookup_elem(&received, &thread);

	if (last && !last->taken) {
		last->taken = 1;
		last->who = *who;
	}
}

/* Zeros: a value of "received" would be too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct received);
} nothing SEC(".maps");

/* A call returned. If its library made no socket call inside, this thread makes them itself. */
static __attribute__((noinline)) void note_silence(const struct conversation_key *who)
{
	struct conversation *conversation = bpf_map_lookup_elem(&conversations, who);
	__u64 thread = bpf_get_current_pid_tgid();
	struct received *fresh;
	__u32 zero = 0;

	if (!conversation || has_tuple(conversation))
		return;
	fresh = bpf_map_lookup_elem(&nothing, &zero);
	if (fresh)
		bpf_map_update_elem(&received, &thread, fresh, BPF_NOEXIST);
}

static __attribute__((noinline)) void infer_from_receive(const struct conversation_key *who,
							 struct conversation *conversation, __u64 bytes, __u64 now)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct received *last = bpf_map_lookup_elem(&received, &thread);
	int fits = 0;
	__u32 i;

	if (!last || !same_conversation(&last->who, who) || now - last->time_ns > FITTING_NS)
		return;
	for (i = 0; i < RECORDS && !fits; i++) {
		fits = last->records[i] && is_overhead(last->records[i] - bytes);
		last->records[i] = 0;
	}
	if (!fits)
		return;
	claim_tuple(who, conversation, &last->tuple);
	if (has_tuple(conversation))
		tell_ends(who, conversation);
}

/* After the bytes were counted. */
static __attribute__((noinline)) void note_write(const struct conversation_key *who,
						 const struct conversation *conversation, __u64 bytes, __u64 now)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct unsent *before = bpf_map_lookup_elem(&unsent, &thread);
	struct unsent fresh = { .who = *who, .time_ns = now };

	if (conversation->offset[EC_WRITE] == bytes)
		fresh.rest = HANDSHAKE_REST;
	if (before && now - before->time_ns <= FITTING_NS) {
		if (same_conversation(&before->who, who)) {
			fresh.bytes = before->bytes;
			fresh.records = before->records;
			fresh.rest = before->rest;
		} else {
			fresh.who.handle = 0; /* whose the next send is cannot be told */
		}
	}
	fresh.bytes += bytes;
	fresh.records += (bytes + RECORD_PLAIN - 1) / RECORD_PLAIN;
	bpf_map_update_elem(&unsent, &thread, &fresh, BPF_ANY);
}

/* --- at socket calls outside of TLS calls --- */

static __always_inline void infer_from_send(const struct sock *sk, int sent)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct unsent *found = bpf_map_lookup_elem(&unsent, &thread);
	struct conversation *conversation;
	struct ec_tuple_value tuple = {};
	struct unsent made;
	__u32 record;
	__u64 size;

	if (!found || sent <= 0)
		return;
	made = *found;
	bpf_map_delete_elem(&unsent, &thread);
	size = sent;
	if (bpf_ktime_get_boot_ns() - made.time_ns > FITTING_NS ||
	    size < made.bytes + made.records * OVERHEAD_LEAST ||
	    size > made.bytes + made.records * OVERHEAD_MOST + made.rest)
		return;
	record = record_at(buffer_of_call());
	if (!record || record + RECORD_HEADER > size)
		return;
	if (record + RECORD_HEADER == size && !is_overhead(record - made.bytes))
		return;
	conversation = bpf_map_lookup_elem(&conversations, &made.who);
	if (!conversation || has_tuple(conversation) || !stream_tuple(&tuple, sk))
		return;
	claim_tuple(&made.who, conversation, &tuple);
	if (has_tuple(conversation))
		tell_ends(&made.who, conversation);
}

static __always_inline void note_receive(const struct sock *sk, int size)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct received *last = bpf_map_lookup_elem(&received, &thread);
	struct ec_tuple_value tuple = {};
	__u64 place, end;
	__u32 i, record;

	if (!last || size <= 0)
		return;
	last->taken = 0;
	last->time_ns = bpf_ktime_get_boot_ns();
	place = stream_tuple(&tuple, sk) ? buffer_of_call() : 0;
	last->tuple = tuple;
	end = place + size;
	for (i = 0; i < RECORDS; i++) {
		record = place + RECORD_HEADER <= end ? record_at(place) : 0;
		last->records[i] = record;
		place = record ? place + RECORD_HEADER + record : 0;
	}
}

#endif
