/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Lays a packet out in the ring as the very block that a pcapng file has (draft-ietf-opsawg-pcapng, 4.3), so that what
 * is drained is written as it is.
 *
 * A ring record must be reserved with a constant size, so the smallest class that holds the block is taken; the block's
 * own length, in its second word, tells the true size, and the reader copies no more than that.
 */
#ifndef EC_BLOCK_BPF_H
#define EC_BLOCK_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024); /* set anew by user space before loading */
} frames SEC(".maps");

enum block_layout {
	BLOCK_PACKET = 6,
	BLOCK_HEAD = 28,     /* type, length, interface, time (2), captured and original length */
	BLOCK_FLAGS = 8,     /* the option epb_flags */
	BLOCK_END = 8,	     /* end of options, and the length again */
	FLAGS_CODE = 2,
	TAG_AT = 12,	     /* behind both addresses of an Ethernet frame */
	TAG_LENGTH = 4,
};

enum block_flag {
	INBOUND = 1,
	OUTBOUND = 2,
	UNICAST = 1 << 2,
	MULTICAST = 2 << 2,
	BROADCAST = 3 << 2,
	PROMISCUOUS = 4 << 2,
};

/* All that a block is made of, beside the bytes of the packet. */
struct block {
	__u64 time_ns;
	__u32 number;	/* of the interface */
	__u32 captured; /* bytes to be kept, the tag included */
	__u32 original;
	__u32 flags;
	__u32 tag;	/* VLAN tag to be put back, as it stood in the frame; 0: none */
	struct ec_owner *first;
	struct ec_owner *second;
	__u64 wakeup_level;
};

/* The verifier must see a bound on the very register that is used. */
#define BOUNDED(value, limit)                  \
	({                                     \
		asm volatile("" : "+r"(value)); \
		(value) <= (limit);            \
	})

/* Whether "length" bytes, 1 to "limit", could be read. The mask gives the verifier the lower bound, which it does not
 * learn from a comparison with 0 on kernels before 6.8, and the compiler would merge with that of the upper bound. */
#define READ(skb, from, to, length, limit)                                            \
	({                                                                            \
		__u64 bytes_ = (length) - 1;                                          \
		asm volatile("" : "+r"(bytes_));                                      \
		bytes_ = (bytes_ & (2 * EC_SNAP_MAXIMUM - 1)) + 1;                    \
		BOUNDED(bytes_, (limit)) && !bpf_skb_load_bytes(skb, from, to, bytes_); \
	})

static __always_inline __u32 write_owner(__u8 *record, __u32 at, const __u32 room, const struct ec_owner *owner)
{
	__u32 length = owner->length;

	if (!BOUNDED(at, room - EC_OWNER_OPTIONS - BLOCK_END))
		return at;
	__builtin_memcpy(record + at, owner->options, EC_OWNER_OPTIONS);
	return length <= EC_OWNER_OPTIONS ? at + length : at;
}

/* Returns 0 if the bytes of the packet could not be read: then it has none. */
static __always_inline int write_bytes(struct __sk_buff *skb, __u8 *record, const __u32 room, const struct block *block)
{
	__u64 length = block->captured, padding = length & ~3u;

	/* what pads the last word */
	if (BOUNDED(padding, room - BLOCK_HEAD - 4))
		*(__u32 *)(record + BLOCK_HEAD + padding) = 0;
	if (!block->tag || length < TAG_AT + TAG_LENGTH)
		return READ(skb, 0, record + BLOCK_HEAD, length, room - BLOCK_HEAD);
	if (bpf_skb_load_bytes(skb, 0, record + BLOCK_HEAD, TAG_AT))
		return 0;
	*(__u32 *)(record + BLOCK_HEAD + TAG_AT) = block->tag;
	length -= TAG_AT + TAG_LENGTH;
	if (!length)
		return 1;
	return READ(skb, TAG_AT, record + BLOCK_HEAD + TAG_AT + TAG_LENGTH, length,
		    room - BLOCK_HEAD - TAG_AT - TAG_LENGTH);
}

/* Returns whether the block is whole; without the bytes of its packet, if those cannot be read. */
static __always_inline int write_block(struct __sk_buff *skb, __u8 *record, const __u32 room, struct block *block)
{
	__u32 *words = (__u32 *)record;
	__u32 at = BLOCK_HEAD;

	if (write_bytes(skb, record, room, block))
		at += (block->captured + 3) & ~3u;
	else
		block->captured = 0;
	if (!BOUNDED(at, room - BLOCK_FLAGS - BLOCK_END))
		return 0;
	*(__u32 *)(record + at) = FLAGS_CODE | 4 << 16;
	*(__u32 *)(record + at + 4) = block->flags;
	at += BLOCK_FLAGS;
	if (block->first)
		at = write_owner(record, at, room, block->first);
	if (block->second)
		at = write_owner(record, at, room, block->second);
	if (!BOUNDED(at, room - BLOCK_END))
		return 0;
	*(__u32 *)(record + at) = 0;
	*(__u32 *)(record + at + 4) = at + BLOCK_END;
	words[0] = BLOCK_PACKET;
	words[1] = at + BLOCK_END;
	words[2] = block->number;
	words[3] = block->time_ns >> 32;
	words[4] = block->time_ns;
	words[5] = block->captured;
	words[6] = block->original;
	return 1;
}

#endif
