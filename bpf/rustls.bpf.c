// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Records of rustls, as they are encrypted and decrypted (rustls/src/crypto/cipher.rs since 0.23).
 *
 *   fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error>
 *   fn decrypt<'a>(&mut self, msg: InboundOpaqueMessage<'a>, seq: u64) -> Result<InboundPlainMessage<'a>, Error>
 *
 * Methods of trait objects: which one is called is known when a cipher suite was agreed on, so no optimiser builds them
 * into what calls them. Both get a message by reference and return through a pointer that the caller gives. What a
 * message looks like in memory user space reads out of each file's code before anything is hooked (binary/calls/rustls.py).
 *
 *   OutboundPlainMessage  { chunks or NULL, count or start, begin or length, end; type }
 *   InboundOpaqueMessage  { start, length; ... }
 *   Result of decrypt     { tag; ... start, length }
 *
 * Invariants
 * 1. No call is believed for what it is: a record that is decrypted must have its own header in front of it in memory, of
 *    this very length (RFC 8446, 5.1), and what came of it must lie where and be as long as TLS 1.2 or 1.3 makes it; of
 *    1.3 the type of the content stands behind it (RFC 8446, 5.2). Anything else is counted as unreadable, not shown.
 * 2. Only application data is shown. A record is one call, or as many as it was put together from.
 * 3. Each direction has an object of its own, so each is a conversation of its own for the kernel; user space joins two
 *    that have the same socket (pipeline/halves.py). The sequence number 0 says that an object is new.
 * 4. The socket that a record came from is the one whose last receive, on this thread, wrote the memory that the record
 *    ends in. Where a program copies what it received, it is inferred, as that of what is sent always is, by the rules
 *    for all whose library touches no socket (lib/inferred.bpf.h).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/conversation.bpf.h"
#include "lib/deliver.bpf.h"
#include "lib/inferred.bpf.h"

/* A large result is returned through a pointer: the first argument on x86-64, x8 on AArch64 (AAPCS64, 6.9). */
#if defined(__TARGET_ARCH_x86)
#define RESULT di
#define SELF si
#define MESSAGE dx
#define SEQUENCE cx
#else
#define RESULT regs[8]
#define SELF regs[0]
#define MESSAGE regs[1]
#define SEQUENCE regs[2]
#endif

enum {
	APPLICATION_DATA = 23,	 /* RFC 8446, 5.1 */
	RECORD_FIRST = 20,
	RECORD_LAST = 24,
	VARIANT_APPLICATION = 3, /* of the enum ContentType, which has no value 23 in that place */
	VARIANT_DECRYPT_ERROR = 6, /* of the enum Error */
	CHUNKS_MAXIMUM = 1024,	 /* IOV_MAX: what a vectored write has at most */
	SAME_CALL_NS = 200000,	 /* less than a handshake takes, more than two probes on one place */
	RESULT_WORDS = 5,
	NONCE = 8, /* of AES-GCM in TLS 1.2, explicit (RFC 5288, 3) */
	TCP_CLOSED = 7,
};

struct outbound {
	__u64 chunks; /* a list of (start, length); NULL: one, which follows */
	__u64 first;  /* how many there are; or where the one is */
	__u64 begin;  /* what of them all together is sent; or how long the one is */
	__u64 end;
	__u8 type;
	__u8 _padding[7];
};

struct slice {
	__u64 start;
	__u64 length;
};

struct rust_call_key {
	__u64 frame;
	__u32 pid;
	__u32 _padding;
};

struct rust_call {
	struct slice record;
	__u64 handle;
	__u64 result;
	__u64 type; /* that stands in front of the record; 0: no header stands there */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct rust_call_key);
	__type(value, struct rust_call);
} rust_calls SEC(".maps");

/* What one thread is about to show. */
struct rust_shown {
	struct conversation_key who;
	struct slice only; /* where there is no list */
	__u64 chunks;
	__u64 begin; /* what of all chunks together */
	__u64 end;
	__u64 passed; /* bytes of chunks that were looked at */
	__u64 shown;
	__u64 now;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct rust_shown);
} rust_shown SEC(".maps");

/* Zeros: values that would be too large for the stack, which functions that call each other share. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rust_shown);
} nothing_shown SEC(".maps");

/* What this thread is about to show, to be filled in; NULL, and counted, if there is no room. */
static __always_inline struct rust_shown *begin_shown(const struct conversation_key *who)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct rust_shown *shown = NULL;
	__u32 zero = 0;
	void *fresh = bpf_map_lookup_elem(&nothing_shown, &zero);

	if (fresh && !bpf_map_update_elem(&rust_shown, &thread, fresh, BPF_ANY))
		shown = bpf_map_lookup_elem(&rust_shown, &thread);
	if (!shown) {
		count_loss(table_full_records);
		return NULL;
	}
	shown->who = *who;
	shown->now = bpf_ktime_get_boot_ns();
	return shown;
}

/* What a thread that uses rustls received last, and where to. */
struct landing {
	struct conversation_key who; /* who decrypted first since */
	struct ec_tuple_value tuple;
	__u32 records[RECORDS]; /* what its first records say they have; 0: none, or decrypted already */
	__u32 _padding;
	__u64 time_ns;
	__u64 start;
	__u64 size;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct landing);
} no_landing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct landing);
} landings SEC(".maps");

/* Who uses rustls. A runtime of several threads may receive on one that never did before. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} rust_processes SEC(".maps");

static __always_inline void expect_landings(void)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32;
	__u8 yes = 1;

	if (!bpf_map_lookup_elem(&rust_processes, &process))
		bpf_map_update_elem(&rust_processes, &process, &yes, BPF_ANY);
}

/* Where to note what this thread receives; 0 if its process does not use rustls. */
static __always_inline struct landing *expected_landing(void)
{
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 process = thread >> 32, zero = 0;
	struct landing *known, *fresh;

	if (!bpf_map_lookup_elem(&rust_processes, &process))
		return 0;
	known = bpf_map_lookup_elem(&landings, &thread);
	if (known)
		return known;
	fresh = bpf_map_lookup_elem(&no_landing, &zero);
	if (!fresh)
		return 0;
	bpf_map_update_elem(&landings, &thread, fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&landings, &thread);
}

/* Its owner may be another task: this can happen when a packet arrives. */
static __always_inline void end_half(const struct conversation_key *who, struct ec_settings *wanted)
{
	struct conversation *conversation = bpf_map_lookup_elem(&conversations, who);
	struct ec_end *record;
	__u64 generation;
	int silent;

	if (!conversation)
		return;
	generation = conversation->generation;
	silent = !conversation->offset[0] && !conversation->offset[1];
	bpf_map_delete_elem(&conversations, who);
	if (silent)
		return;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		count_loss(end_records);
		return;
	}
	fill_header(&record->header, EC_KIND_END, sizeof(*record), bpf_ktime_get_boot_ns());
	record->header.pid = who->pid;
	record->handle = who->handle;
	record->generation = generation;
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
}

/* The direction is part of the handle: boxes are aligned, and one may lie where one of the other kind was. */
static __always_inline struct conversation *half(struct conversation_key *who, __u64 self, __u8 direction,
						 __u64 sequence, struct ec_settings *wanted)
{
	who->handle = self | direction;
	if (!sequence)
		end_half(who, wanted);
	return get_conversation(who, bpf_ktime_get_boot_ns());
}

/*
 * Shows chunk "index" of what this thread is about to show, of which less than a record's content is wanted. Answers
 * whether there is more. A global function: the verifier walks it once, not once a round (5.6, commit 51c39bb1d5d1).
 */
__attribute__((noinline)) int rust_show(__u32 index)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct rust_shown *shown = bpf_map_lookup_elem(&rust_shown, &thread);
	struct ec_settings *wanted = get_settings();
	struct ec_hook hook = {};
	struct emission emission = {};
	struct conversation *conversation;
	struct conversation_key who;
	struct slice chunk;
	__u64 skipped, length, kept;

	if (!shown || !wanted)
		return 0;
	who = shown->who;
	chunk = shown->only;
	conversation = bpf_map_lookup_elem(&conversations, &who);
	if (!conversation)
		return 0;
	if (shown->chunks &&
	    bpf_probe_read_user(&chunk, sizeof(chunk), (void *)(shown->chunks + index * sizeof(chunk))))
		return 0;
	skipped = shown->begin > shown->passed ? shown->begin - shown->passed : 0;
	if (skipped >= chunk.length) {
		shown->passed += chunk.length;
		return 1;
	}
	length = chunk.length - skipped;
	if (length > shown->end - shown->passed - skipped)
		length = shown->end - shown->passed - skipped;
	if (length > RECORD_PLAIN)
		return 0;
	shown->passed += chunk.length;
	shown->shown += length;
	hook.direction = who.handle & 1;
	emission.wanted = wanted;
	emission.buffer = chunk.start + skipped;
	begin_emission(&emission, &who, conversation, &hook, EC_HOOK_HALF, shown->now);
	emission.head.stream_offset = conversation->offset[hook.direction & 1];
	emission.head.call_length = length;
	kept = length < wanted->payload_limit ? length : wanted->payload_limit;
	if (kept < length) {
		emission.head.header.flags |= EC_FLAG_TRUNCATED;
		count_lost_bytes(truncated_calls, truncated_bytes, length - kept);
	}
	conversation->offset[hook.direction & 1] += length;
	conversation->emitted_ns[hook.direction & 1] = shown->now;
	send_last(&emission, 0, kept);
	return shown->passed < shown->end;
}

/* Something of so many bytes passed that cannot be read: an event without payload, and counted. */
static __always_inline void show_unreadable(const struct conversation_key *who, __u64 bytes)
{
	struct rust_shown *shown = begin_shown(who);

	if (!shown)
		return;
	/* at address 0, where nothing is */
	shown->only.length = shown->end = bytes < RECORD_PLAIN ? bytes : RECORD_PLAIN;
	rust_show(0);
}

/* A file that is probed twice (one inode through two overlays): the same record at the same moment. Here "covered" keeps
 * the number of the record behind the last. */
static __always_inline int is_repeated(const struct pt_regs *regs, __u32 pid)
{
	struct conversation_key who = { .handle = regs->SELF | EC_WRITE, .pid = pid };
	struct conversation *known = bpf_map_lookup_elem(&conversations, &who);

	return known && known->covered == regs->SEQUENCE + 1 &&
	       bpf_ktime_get_boot_ns() - known->emitted_ns[EC_WRITE] < SAME_CALL_NS;
}

SEC("uprobe")
int rust_encrypt(struct pt_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct conversation_key who = { .pid = thread >> 32 };
	struct ec_settings *wanted = get_settings();
	struct conversation *conversation;
	struct rust_shown *shown;
	struct outbound message = {};
	__u64 length, count = 1;
	__u32 i;

	if (!wanted || !is_target(wanted, who.pid) || is_repeated(regs, who.pid))
		return 0;
	conversation = half(&who, regs->SELF, EC_WRITE, regs->SEQUENCE, wanted);
	expect_landings();
	if (!conversation)
		return 0;
	conversation->covered = regs->SEQUENCE + 1;
	conversation->emitted_ns[EC_WRITE] = bpf_ktime_get_boot_ns();
	if (bpf_probe_read_user(&message, offsetof(struct outbound, _padding), (void *)regs->MESSAGE)) {
		show_unreadable(&who, RECORD_PLAIN);
		return 0;
	}
	if (message.type != VARIANT_APPLICATION && message.type != APPLICATION_DATA)
		return 0;
	length = message.chunks ? message.end - message.begin : message.begin;
	if (!length)
		return 0;
	if (length > RECORD_PLAIN) {
		show_unreadable(&who, RECORD_PLAIN);
		return 0;
	}
	shown = begin_shown(&who);
	if (!shown)
		return 0;
	if (message.chunks) {
		count = message.first;
		shown->chunks = message.chunks;
		shown->begin = message.begin;
		shown->end = message.end;
	} else {
		shown->only.start = message.first;
		shown->only.length = shown->end = length;
	}
	for (i = 0; i < CHUNKS_MAXIMUM; i++) {
		if (i >= count || !rust_show(i))
			break;
	}
	shown = bpf_map_lookup_elem(&rust_shown, &thread);
	if (shown && shown->shown < length)
		show_unreadable(&who, length - shown->shown);
	if (!has_tuple(conversation))
		note_write(&who, conversation, length, bpf_ktime_get_boot_ns());
	return 0;
}

SEC("uprobe")
int rust_decrypt(struct pt_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct rust_call_key key = { .frame = frame_at_entry(regs), .pid = thread >> 32 };
	struct conversation_key who = { .pid = thread >> 32 };
	struct ec_settings *wanted = get_settings();
	struct rust_call call = { .result = regs->RESULT };

	if (!wanted || !is_target(wanted, key.pid))
		return 0;
	expect_landings();
	if (!half(&who, regs->SELF, EC_READ, regs->SEQUENCE, wanted))
		return 0;
	call.handle = who.handle;
	if (!bpf_probe_read_user(&call.record, sizeof(call.record), (void *)regs->MESSAGE) && call.record.length &&
	    record_at(call.record.start - RECORD_HEADER) == call.record.length) {
		__u8 type = 0;

		bpf_probe_read_user(&type, sizeof(type), (void *)(call.record.start - RECORD_HEADER));
		call.type = type;
	}
	if (bpf_map_update_elem(&rust_calls, &key, &call, BPF_ANY))
		count_loss(table_full_records);
	return 0;
}

/* What was decrypted, in place; its type, or 0 if the record is not what TLS makes. */
static __always_inline __u8 content_of(const struct rust_call *call, const __u64 *words, int newer, struct slice *content)
{
	__u64 start = call->record.start, length = call->record.length;
	__u8 type = 0;
	int i;

	for (i = 1; i < RESULT_WORDS - 1; i++) {
		if (words[i] == start || (!newer && words[i] == start + NONCE)) {
			content->start = words[i];
			content->length = words[i + 1];
			break;
		}
	}
	if (!content->start)
		return 0;
	/* RFC 8446, 5.2: the content, its type, zeros, a tag of 16 */
	if (newer) {
		if (content->length < length && content->length + 17 <= length)
			bpf_probe_read_user(&type, sizeof(type), (void *)(start + content->length));
		return type;
	}
	/* RFC 5288, 3: a nonce of 8, the content, which ring moves to the front, a tag of 16; RFC 7905: no nonce */
	if (content->length + NONCE + 16 == length || (content->start == start && content->length + 16 == length))
		return call->type;
	return 0;
}

/*
 * The socket is that of the receive which wrote the end of the record; whoever had it before has it no more. Where the
 * program copied what it received, that of the last receive, if it had a record of this length, nobody decrypted anything
 * since, and nobody else has it.
 */
static __attribute__((noinline)) void claim_landing(const struct conversation_key *who, const struct slice *record)
{
	__u64 thread = bpf_get_current_pid_tgid(), end = record->start + record->length;
	struct conversation *conversation = bpf_map_lookup_elem(&conversations, who);
	struct landing *landing = bpf_map_lookup_elem(&landings, &thread);
	struct ec_tuple_value tuple;
	int fits = 0;
	__u32 i;

	if (!conversation || !landing)
		return;
	if (!landing->who.handle)
		landing->who = *who;
	if (has_tuple(conversation) || landing->tuple.source != EC_TUPLE_INFERRED)
		return;
	tuple = landing->tuple;
	tuple.version = 1 + EC_READ; /* the other direction has the same ends */
	if (end > landing->start && end <= landing->start + landing->size) {
		struct claim own = { .who = *who, .generation = conversation->generation };

		__builtin_memcpy(&conversation->tuple, &tuple, offsetof(struct ec_tuple_value, version));
		bpf_map_update_elem(&claims, &tuple, &own, BPF_ANY);
		return;
	}
	for (i = 0; i < RECORDS && !fits; i++) {
		fits = landing->records[i] == record->length;
		landing->records[i] = 0;
	}
	if (fits && same_conversation(&landing->who, who) && bpf_ktime_get_boot_ns() - landing->time_ns <= FITTING_NS)
		claim_tuple(who, conversation, &tuple);
}

static __always_inline void show_decrypted(const struct rust_call *call, int newer)
{
	struct conversation_key who = { .handle = call->handle, .pid = bpf_get_current_pid_tgid() >> 32 };
	__u64 words[RESULT_WORDS] = {};
	struct rust_shown *shown;
	struct slice content = {};
	__u8 type = 0;

	if (!entered_conversation(&who, bpf_ktime_get_boot_ns()))
		return;
	if (!bpf_probe_read_user(words, sizeof(words), (void *)call->result)) {
		if ((__u8)words[0] == VARIANT_DECRYPT_ERROR)
			return;
		if (call->type)
			type = content_of(call, words, newer, &content);
	}
	if (type < RECORD_FIRST || type > RECORD_LAST) {
		show_unreadable(&who, call->record.length > 24 ? call->record.length - 24 : RECORD_PLAIN);
		return;
	}
	if (type != APPLICATION_DATA || !content.length)
		return;
	claim_landing(&who, &call->record);
	shown = begin_shown(&who);
	if (!shown)
		return;
	shown->only = content;
	shown->end = content.length;
	rust_show(0);
}

static __always_inline int decrypted(struct pt_regs *regs, int newer)
{
	struct rust_call_key key = { .frame = frame_at_return(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct rust_call *call = bpf_map_lookup_elem(&rust_calls, &key);

	if (call) {
		show_decrypted(call, newer);
		bpf_map_delete_elem(&rust_calls, &key);
	}
	return 0;
}

SEC("uretprobe")
int rust_decrypted(struct pt_regs *regs)
{
	return decrypted(regs, 1);
}

SEC("uretprobe")
int rust_decrypted_older(struct pt_regs *regs)
{
	return decrypted(regs, 0);
}

/* --- sockets --- */

SEC("tp_btf/sock_send_length")
int BPF_PROG(rust_socket_send, struct sock *sk, int size, int flags)
{
	infer_from_send(sk, size);
	return 0;
}

#define PEEK 2 /* MSG_PEEK */

SEC("tp_btf/sock_recv_length")
int BPF_PROG(rust_socket_receive, struct sock *sk, int size, int flags)
{
	struct landing *landing;
	struct ec_tuple_value tuple = {};
	__u64 place, end;
	__u32 i, record;

	if (size <= 0 || (flags & PEEK))
		return 0;
	landing = expected_landing();
	if (!landing)
		return 0;
	place = stream_tuple(&tuple, sk) ? buffer_of_call() : 0;
	landing->who.handle = 0;
	landing->tuple = tuple;
	landing->time_ns = bpf_ktime_get_boot_ns();
	landing->start = place;
	landing->size = place ? size : 0;
	end = place + size;
	for (i = 0; i < RECORDS; i++) {
		record = place + RECORD_HEADER <= end ? record_at(place) : 0;
		landing->records[i] = record;
		place = record ? place + RECORD_HEADER + record : 0;
	}
	return 0;
}

static __always_inline void end_claim(const struct ec_tuple_value *tuple, struct ec_settings *wanted)
{
	struct claim *known = bpf_map_lookup_elem(&claims, tuple);
	struct conversation *conversation;
	struct conversation_key who;

	/* of other libraries' claims their own probes know the end */
	if (!known || (!tuple->version && !(known->who.handle & EC_WRITE)))
		return;
	who = known->who;
	conversation = bpf_map_lookup_elem(&conversations, &who);
	if (conversation && conversation->generation == known->generation)
		end_half(&who, wanted);
	bpf_map_delete_elem(&claims, tuple);
}

struct inet_sock {
	__u16 inet_sport; /* stays when the port was given back */
} __attribute__((preserve_access_index));

/* Nothing tells when an object of rustls is dropped; its socket's end does. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(rust_socket_state, struct sock *sk, int before, int after)
{
	struct ec_settings *wanted = get_settings();
	struct ec_tuple_value tuple = {};

	if (after != TCP_CLOSED || !wanted || !stream_tuple(&tuple, sk))
		return 0;
	tuple.local_port = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	end_claim(&tuple, wanted);
	tuple.version = 1 + EC_READ;
	end_claim(&tuple, wanted);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
