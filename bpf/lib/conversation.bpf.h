/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Which conversation a TLS call belongs to, how far it has come, and between whom it is held.
 *
 * A conversation is (process, handle, generation). The generation is the time at which the handle was first seen since
 * its library freed it, or since its process was born: an address that is reused at once starts a new conversation.
 * The 4-tuple is found once and kept. First through the fd that the library was given; else from the first socket call
 * that the library makes inside a TLS call on the same thread.
 */
#ifndef EC_CONVERSATION_BPF_H
#define EC_CONVERSATION_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"
#include "socket.bpf.h"
#include "process.bpf.h"

struct conversation_key {
	__u64 handle;
	__u32 pid;
	__u32 _padding;
};

struct conversation {
	__u64 generation;
	__u64 offset[2];    /* bytes so far, by direction */
	__u64 emitted_ns[2]; /* when the last record of a direction was made */
	__u64 covered;	    /* frame of a running call that sends again what was shown; else 0 */
	struct ec_tuple_value tuple;
	__s32 fd;
	__u32 fruitless; /* calls without a socket call inside, while there was no tuple */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct conversation_key);
	__type(value, struct conversation);
} conversations SEC(".maps");

/* Threads inside a TLS call of a conversation without 4-tuple: the only ones whose socket calls we look at. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct conversation_key);
} seekers SEC(".maps");

static __always_inline struct conversation *get_conversation(const struct conversation_key *key, __u64 now)
{
	struct conversation *known = bpf_map_lookup_elem(&conversations, key);
	__u32 pid = key->pid;
	__u64 *born = bpf_map_lookup_elem(&processes, &pid);

	if (!born) {
		bpf_map_update_elem(&processes, &pid, &now, BPF_NOEXIST);
		/* Another thread may have been first, and its time may be later than ours. */
		born = bpf_map_lookup_elem(&processes, &pid);
	}
	if (born && known && known->generation >= *born)
		return known;

	struct conversation fresh = { .generation = now, .fd = -1 };

	if (born && *born > now)
		fresh.generation = *born;

	bpf_map_update_elem(&conversations, key, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(&conversations, key);
}

/* The conversation of a call that has entered it before: its process cannot have been replaced since. */
static __always_inline struct conversation *entered_conversation(const struct conversation_key *key, __u64 now)
{
	struct conversation *known = bpf_map_lookup_elem(&conversations, key);

	return known ? known : get_conversation(key, now);
}

static __always_inline int has_tuple(const struct conversation *conversation)
{
	return conversation->tuple.source != EC_TUPLE_NONE;
}

/*
 * Whether to look for a socket call inside this call. A program that does the socket's work itself (memory BIOs) never
 * makes one, and should not pay for our looking at every call: after many in vain only some are looked at.
 */
static __always_inline int worth_seeking(struct conversation *conversation)
{
	__u32 before = conversation->fruitless;

	if (has_tuple(conversation) || conversation->fd >= 0)
		return 0;
	conversation->fruitless = before + 1;
	return before < 256 || !(before & 63);
}

static __always_inline void seek_tuple(const struct conversation_key *key)
{
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&seekers, &thread, key, BPF_ANY);
}

static __always_inline void end_seek(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&seekers, &thread);
}

static __always_inline int is_seeking(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&seekers, &thread) != NULL;
}

/* A socket call by a thread inside a TLS call: its socket is the conversation's. */
static __always_inline int on_nested_socket_call(const struct sock *sk)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct conversation_key *key = bpf_map_lookup_elem(&seekers, &thread);
	struct conversation *conversation;

	if (!key)
		return 0;
	struct conversation_key copy = *key;

	conversation = bpf_map_lookup_elem(&conversations, &copy);
	if (conversation && !has_tuple(conversation)) {
		struct ec_tuple_value tuple = {};

		read_socket(&tuple, sk, EC_TUPLE_NESTED_CALL);
		if (tuple.source < EC_TUPLE_NOT_INET) /* a log or name-service socket is not the conversation's */
			conversation->tuple = tuple;
	}
	return 0;
}

#endif
