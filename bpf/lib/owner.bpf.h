/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Which process a socket belongs to.
 *
 * A socket carries one number (in the map "owners", which the kernel frees with the socket and copies to sockets that a
 * listening one accepts). The number stands for a process under one name: its lower half is the pid, its upper half a
 * hash of all else that is told of it. So what it stands for never changes, and a process that takes over a socket, or
 * calls itself otherwise, changes one word.
 */
#ifndef EC_OWNER_BPF_H
#define EC_OWNER_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u64);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct ec_owner);
} owner_facts SEC(".maps");

enum owner_option {
	OPTION_COMMENT = 1,	     /* draft-ietf-opsawg-pcapng, 3.5 */
	OPTION_CUSTOM_BYTES = 2989,  /* 3.5.1 */
	PROCESS_LENGTH = 32,	     /* of the custom option: enterprise, magic, pid, uid, command */
	PROCESS_MAGIC = 0x70616365,  /* "ecap" */
	TEXT_ROOM = 32,		     /* "pid ", seven digits (PID_MAX_LIMIT), " (", 15 bytes, ")" */
};

static __always_inline __u64 owner_number(const struct ec_owner *owner)
{
	const __u32 *words = (const __u32 *)owner->comm;
	__u32 hash = 2166136261u; /* FNV-1a, a word at a time */
	int i;

	hash = (hash ^ owner->uid) * 16777619u;
	hash = (hash ^ owner->in_cgroup) * 16777619u;
#pragma unroll
	for (i = 0; i < EC_COMM_LENGTH / 4; i++)
		hash = (hash ^ words[i]) * 16777619u;
	return (__u64)hash << 32 | owner->pid;
}

/* Two writers at once write the same bytes, and the length comes last: nobody ever reads a half. */
static __always_inline void write_options(struct ec_owner *owner)
{
	__u8 *text = owner->options + 4;
	__u32 divisor = 1000000, at = 4, digit, length, begun = 0;
	__u8 *process;
	int i;

	__builtin_memcpy(text, "pid ", 4);
#pragma unroll
	for (i = 0; i < 7; i++) {
		digit = owner->pid / divisor % 10;
		divisor /= 10;
		if (digit || begun || i == 6) {
			text[at & (TEXT_ROOM - 1)] = '0' + digit;
			at++;
			begun = 1;
		}
	}
	text[at++ & (TEXT_ROOM - 1)] = ' ';
	text[at++ & (TEXT_ROOM - 1)] = '(';
#pragma unroll
	for (i = 0; i < EC_COMM_LENGTH - 1; i++) {
		__u8 letter = owner->comm[i];

		if (!letter)
			break;
		/* a comment is UTF-8, and what a process calls itself may be anything */
		text[at++ & (TEXT_ROOM - 1)] = letter < 0x20 || letter > 0x7e ? '?' : letter;
	}
	text[at++ & (TEXT_ROOM - 1)] = ')';
	*(__u16 *)owner->options = OPTION_COMMENT;
	*(__u16 *)(owner->options + 2) = at;
	length = 4 + ((at + 3) & ~3u);
	if (length > 4 + TEXT_ROOM)
		return;
	process = owner->options + length;
	*(__u16 *)process = OPTION_CUSTOM_BYTES;
	*(__u16 *)(process + 2) = PROCESS_LENGTH;
	*(__u32 *)(process + 4) = EC_ENTERPRISE;
	*(__u32 *)(process + 8) = PROCESS_MAGIC;
	*(__u32 *)(process + 12) = owner->pid;
	*(__u32 *)(process + 16) = owner->uid;
	__builtin_memcpy(process + 20, owner->comm, EC_COMM_LENGTH);
	barrier();
	owner->length = length + 4 + PROCESS_LENGTH;
}

/* The number of a process, whose facts are kept from now on. 0: there was no room. */
static __always_inline __u64 keep_owner(const struct ec_owner *given)
{
	__u64 number = owner_number(given);
	struct ec_owner *known = bpf_map_lookup_elem(&owner_facts, &number);

	if (known && known->length)
		return number;
	if (!known) {
		bpf_map_update_elem(&owner_facts, &number, given, BPF_NOEXIST);
		known = bpf_map_lookup_elem(&owner_facts, &number);
		if (!known)
			return 0;
	}
	write_options(known);
	return number;
}

#endif
