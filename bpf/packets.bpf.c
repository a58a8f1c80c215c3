// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Every frame of an interface, once, with the processes at its ends, as a block of a pcapng file.
 *
 * Attached before all others that look at frames, so that what those drop or change is seen as it came. Where there is a
 * filter expression, a program made of it stands in front and calls one of these only for what it lets through.
 *
 * Invariant: a frame that passed the filter is in the ring or counted as dropped.
 */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <bpf/bpf_helpers.h>
#include "wire.h"
#include "lib/target.bpf.h"
#include "lib/owner.bpf.h"
#include "lib/ends.bpf.h"
#include "lib/block.bpf.h"

enum {
	NEXT = -1, /* TCX_NEXT and TC_ACT_UNSPEC: whoever else looks at frames decides */
	DNS = 53,
	MULTICAST_DNS = 5353,
};

/* By index, of one network namespace: each has a copy of this object to itself. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EC_INTERFACES_MAXIMUM);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct ec_interface);
} interfaces SEC(".maps");

/* By number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_INTERFACES_MAXIMUM);
	__type(key, __u32);
	__type(value, struct ec_interface_counts);
} interface_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ec_packet_settings);
} packet_settings SEC(".maps");

/* What a filter program calls: 0 for frames that arrive, 1 for frames that are sent. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} behind_filter SEC(".maps");

/* The processes at the ends of a frame; "second" only where both are here. */
struct owners_found {
	__u64 first;
	__u64 second;
};

static __always_inline __u64 wakeup(const struct block *block, struct ec_settings *wanted, __u32 size)
{
	__u64 available;

	if (wanted->reader_asleep) {
		wanted->reader_asleep = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	available = bpf_ringbuf_query(&frames, BPF_RB_AVAIL_DATA);
	if (available >= block->wakeup_level && available - block->wakeup_level < size + BPF_RINGBUF_HDR_SZ)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

#define SEND(ROOM)                                                              \
	do {                                                                    \
		__u8 *record_ = bpf_ringbuf_reserve(&frames, (ROOM), 0);        \
		if (!record_)                                                   \
			return 0;                                               \
		if (!write_block(skb, record_, (ROOM), block)) {                \
			bpf_ringbuf_discard(record_, BPF_RB_NO_WAKEUP);         \
			return 0;                                               \
		}                                                               \
		bpf_ringbuf_submit(record_, wakeup(block, wanted, (ROOM)));     \
		return 1;                                                       \
	} while (0)

/* Returns whether there was room. */
static __always_inline int send(struct __sk_buff *skb, struct block *block, struct ec_settings *wanted)
{
	__u32 size = BLOCK_HEAD + ((block->captured + 3) & ~3u) + BLOCK_FLAGS + BLOCK_END;

	if (block->first)
		size += EC_OWNER_OPTIONS;
	if (block->second)
		size += EC_OWNER_OPTIONS;
	if (size <= 192)
		SEND(192);
	if (size <= 256)
		SEND(256);
	if (size <= 320)
		SEND(320);
	if (size <= 512)
		SEND(512);
	if (size <= 1024)
		SEND(1024);
	if (size <= 1728)
		SEND(1728);
	if (size <= 4096)
		SEND(4096);
	if (size <= 10240)
		SEND(10240);
	if (size <= 32768)
		SEND(32768);
	if (size <= 66560)
		SEND(66560);
	SEND(EC_SNAP_MAXIMUM + 512);
}

static __always_inline void find_owners(struct __sk_buff *skb, const struct ec_interface *interface, int sent,
					struct ends *ends, __u64 now, struct owners_found *found)
{
	struct place place = {};
	int known;

	ends->space = interface->space;
	known = find_ends(skb, interface->header, ends, &place);
	if (sent) {
		found->first = owner_of_sender(skb);
		if (!known)
			return;
		if (place.later)
			name_fragment(ends, &place);
		if (found->first)
			remember(ends, found->first, now);
		else
			found->first = remembered(ends, now);
		if (!interface->both)
			return;
	} else if (!known) {
		return;
	} else if (place.later) {
		name_fragment(ends, &place);
		found->first = remembered(ends, now);
		return;
	}
	if (place.later)
		return;
	/* whom it is for */
	found->second = owner_of_receiver(skb, ends);
	if (!found->second) {
		turn(ends);
		found->second = remembered(ends, now);
		turn(ends);
	}
	if (!found->first) {
		found->first = found->second;
		found->second = 0;
	}
	if (!sent && place.fragment && found->first) {
		struct ends fragment = *ends;

		name_fragment(&fragment, &place);
		remember(&fragment, found->first, now);
	}
}

static __always_inline int is_wanted(const struct ec_settings *wanted, __u64 number, const struct ec_owner *owner)
{
	__u32 pid = number;

	if (!number)
		return 0;
	if (wanted->by_pid && !bpf_map_lookup_elem(&pids, &pid))
		return 0;
	if (!wanted->by_uid && !wanted->by_comm && !wanted->cgroup_count)
		return 1;
	if (!owner)
		return 0;
	if (wanted->by_uid && !bpf_map_lookup_elem(&uids, &owner->uid))
		return 0;
	if (wanted->by_comm) {
		struct comm comm;

		__builtin_memcpy(comm.name, owner->comm, sizeof(comm.name));
		if (!bpf_map_lookup_elem(&comms, &comm))
			return 0;
	}
	return !wanted->cgroup_count || owner->in_cgroup;
}

static __always_inline int is_name_service(const struct ends *ends)
{
	__u16 source = bpf_ntohs(ends->source_port), destination = bpf_ntohs(ends->destination_port);

	if (ends->protocol != IPPROTO_UDP && ends->protocol != IPPROTO_TCP)
		return 0;
	return source == DNS || destination == DNS || source == MULTICAST_DNS || destination == MULTICAST_DNS;
}

static __always_inline struct ec_owner *facts_of(__u64 number)
{
	struct ec_owner *owner = number ? bpf_map_lookup_elem(&owner_facts, &number) : 0;

	return owner && owner->length ? owner : 0;
}

/* How a frame that arrived was addressed (PACKET_HOST and its relatives, UAPI linux/if_packet.h). */
static __always_inline __u32 addressed(__u32 type)
{
	return type == PACKET_HOST ? UNICAST : type == PACKET_BROADCAST ? BROADCAST :
	       type == PACKET_MULTICAST ? MULTICAST : type == PACKET_OTHERHOST ? PROMISCUOUS : 0;
}

static __always_inline int capture(struct __sk_buff *skb, int sent)
{
	struct ec_settings *wanted = get_settings();
	struct ec_packet_settings *packet;
	struct ec_interface_counts *counts;
	struct owners_found found = {};
	struct ec_interface *interface;
	__u32 zero = 0, index = skb->ifindex;
	struct block block = {};
	struct ends ends = {};
	__u64 now;

	packet = bpf_map_lookup_elem(&packet_settings, &zero);
	interface = bpf_map_lookup_elem(&interfaces, &index);
	if (!wanted || !packet || !interface)
		return NEXT;
	counts = bpf_map_lookup_elem(&interface_counts, &interface->number);
	if (!counts)
		return NEXT;
	now = bpf_ktime_get_boot_ns();
	find_owners(skb, interface, sent, &ends, now, &found);
	block.first = facts_of(found.first);
	block.second = facts_of(found.second);
	if ((found.first && (__u32)found.first == wanted->excluded_pid) ||
	    (found.second && (__u32)found.second == wanted->excluded_pid))
		return NEXT;
	if ((wanted->by_pid || wanted->by_uid || wanted->by_comm || wanted->cgroup_count) &&
	    !is_wanted(wanted, found.first, block.first) && !is_wanted(wanted, found.second, block.second) &&
	    !(packet->with_names && is_name_service(&ends)))
		return NEXT;
	__sync_fetch_and_add(&counts->received, 1);
	block.time_ns = now + packet->wall_offset_ns;
	block.number = interface->number;
	block.original = skb->len;
	if (skb->vlan_present && interface->header) {
		block.tag = (skb->vlan_proto & 0xFFFF) | (__u32)bpf_htons(skb->vlan_tci) << 16;
		block.original += TAG_LENGTH;
	}
	block.captured = block.original;
	if (block.captured > packet->snap_length) {
		block.captured = packet->snap_length;
		__sync_fetch_and_add(&counts->cut, 1);
	}
	block.flags = sent ? OUTBOUND : INBOUND | addressed(skb->pkt_type);
	block.wakeup_level = packet->wakeup_level;
	if (!send(skb, &block, wanted))
		__sync_fetch_and_add(&counts->dropped, 1);
	else if (!block.captured && block.original)
		__sync_fetch_and_add(&counts->unreadable, 1);
	return NEXT;
}

SEC("tc")
int ecapture_in(struct __sk_buff *skb)
{
	return capture(skb, 0);
}

SEC("tc")
int ecapture_out(struct __sk_buff *skb)
{
	return capture(skb, 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
