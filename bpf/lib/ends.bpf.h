/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Between whom a frame passes, and whose it is.
 *
 * The socket of a frame that is sent hangs at the frame. That of one that arrives is looked up as the kernel itself
 * will. What cannot be found so (frames of connections that close, of ICMP, behind address translation, later fragments)
 * is taken from the addresses of frames that were sent shortly before.
 */
#ifndef EC_ENDS_BPF_H
#define EC_ENDS_BPF_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "owner.bpf.h"

/* As seen by the one who sent the frame. Of ICMP the port is the number of the query (RFC 792). */
struct ends {
	__u32 source[4];
	__u32 destination[4];
	__u16 source_port; /* network byte order, as all here */
	__u16 destination_port;
	__u8 protocol;
	__u8 family; /* enum ec_family; 0: neither IPv4 nor IPv6 */
	__u16 space;
};

struct sighting {
	__u64 owner;
	__u64 seen_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct ends);
	__type(value, struct sighting);
} sightings SEC(".maps");

enum {
	IPV6_HOP_BY_HOP = 0,
	IPV6_ROUTING = 43,
	IPV6_FRAGMENT = 44,
	IPV6_AUTHENTICATION = 51,
	IPV6_DESTINATION = 60,
	IPV6_ICMP = 58,
	IPV6_EXTENSIONS = 6,	/* more than any real packet has */
	TAGS = 2,		/* VLAN tags in the frame itself */
	FRAGMENTS = 0xFD,	/* as protocol: a fragment, named by its identification instead of ports */
};

#define SIGHTING_NS (120 * 1000000000ULL) /* twice the time that closed connections linger */
#define SIGHTING_FRESH_NS 1000000000ULL

struct place {
	__u32 at;	/* of the transport header */
	__u16 fragment; /* not 0: a fragment */
	__u16 later;	/* not 0: not the first, so it has no ports */
	__u32 id;	/* of the fragment */
};

static __always_inline int find_ipv4(struct __sk_buff *skb, __u32 at, struct ends *ends, struct place *place)
{
	__u8 head[20];
	__u16 offset;

	if (bpf_skb_load_bytes(skb, at, head, sizeof(head)) || head[0] >> 4 != 4)
		return -1;
	ends->family = EC_FAMILY_IPV4;
	ends->protocol = head[9];
	__builtin_memcpy(&ends->source[0], head + 12, 4);
	__builtin_memcpy(&ends->destination[0], head + 16, 4);
	offset = head[6] << 8 | head[7];
	place->at = at + (head[0] & 15) * 4;
	place->fragment = offset & 0x3FFF; /* more follow, or this is not the first (RFC 791, 3.1) */
	place->later = offset & 0x1FFF;
	place->id = head[4] << 8 | head[5];
	return 0;
}

static __always_inline int find_ipv6(struct __sk_buff *skb, __u32 at, struct ends *ends, struct place *place)
{
	__u8 head[8], next;
	int i;

	if (bpf_skb_load_bytes(skb, at, head, sizeof(head)) || head[0] >> 4 != 6)
		return -1;
	if (bpf_skb_load_bytes(skb, at + 8, ends->source, 32))
		return -1;
	ends->family = EC_FAMILY_IPV6;
	next = head[6];
	at += 40;
#pragma unroll
	for (i = 0; i < IPV6_EXTENSIONS; i++) {
		if (next != IPV6_HOP_BY_HOP && next != IPV6_ROUTING && next != IPV6_FRAGMENT &&
		    next != IPV6_AUTHENTICATION && next != IPV6_DESTINATION)
			break;
		if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
			return -1;
		if (next == IPV6_FRAGMENT) {
			place->later = (head[2] << 8 | head[3]) & 0xFFF8;
			place->fragment = 1;
			place->id = *(__u32 *)(head + 4);
			at += 8;
		} else if (next == IPV6_AUTHENTICATION) {
			at += (head[1] + 2) * 4;
		} else {
			at += (head[1] + 1) * 8;
		}
		next = head[0];
		if (place->later)
			break;
	}
	ends->protocol = next;
	place->at = at;
	return 0;
}

static __always_inline void find_ports(struct __sk_buff *skb, struct ends *ends, const struct place *place)
{
	__u16 words[3];

	if (ends->protocol == IPPROTO_ICMP || ends->protocol == IPV6_ICMP) {
		if (!bpf_skb_load_bytes(skb, place->at, words, sizeof(words)))
			ends->source_port = ends->destination_port = words[2];
	} else if (ends->protocol == IPPROTO_TCP || ends->protocol == IPPROTO_UDP || ends->protocol == IPPROTO_SCTP) {
		bpf_skb_load_bytes(skb, place->at, &ends->source_port, 4);
	}
}

/* "header" bytes of the frame stand before what skb->protocol announces. 0: it is neither IPv4 nor IPv6. */
static __always_inline int find_ends(struct __sk_buff *skb, __u32 header, struct ends *ends, struct place *place)
{
	__u32 at = header;
	__u16 type = skb->protocol;
	int i;

#pragma unroll
	for (i = 0; i < TAGS; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (!header || bpf_skb_load_bytes(skb, at + 2, &type, sizeof(type)))
			return 0;
		at += 4;
	}
	if (type == bpf_htons(ETH_P_IP)) {
		if (find_ipv4(skb, at, ends, place))
			return 0;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		if (find_ipv6(skb, at, ends, place))
			return 0;
	} else {
		return 0;
	}
	if (!place->later)
		find_ports(skb, ends, place);
	return 1;
}

/* The owner of the socket that a frame with these ends is meant for. */
static __always_inline __u64 owner_of_receiver(struct __sk_buff *skb, const struct ends *ends)
{
	struct bpf_sock_tuple tuple = {};
	__u64 *owner, found = 0;
	struct bpf_sock *sk;
	__u32 size;

	if (ends->family == EC_FAMILY_IPV4) {
		tuple.ipv4.saddr = ends->source[0];
		tuple.ipv4.daddr = ends->destination[0];
		tuple.ipv4.sport = ends->source_port;
		tuple.ipv4.dport = ends->destination_port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, ends->source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, ends->destination, 16);
		tuple.ipv6.sport = ends->source_port;
		tuple.ipv6.dport = ends->destination_port;
		size = sizeof(tuple.ipv6);
	}
	if (ends->protocol == IPPROTO_TCP)
		sk = size == sizeof(tuple.ipv4) ?
			     bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) :
			     bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	else if (ends->protocol == IPPROTO_UDP)
		sk = size == sizeof(tuple.ipv4) ?
			     bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) :
			     bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!sk)
		return 0;
	owner = bpf_sk_storage_get(&owners, sk, 0, 0);
	if (owner)
		found = *owner;
	bpf_sk_release(sk);
	return found;
}

/* The owner of the socket at a frame that is sent; of a connection that is being accepted, that of the listening one. */
static __always_inline __u64 owner_of_sender(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk, *full;
	__u64 *owner;

	if (!sk)
		return 0;
	full = bpf_sk_fullsock(sk);
	if (!full)
		full = bpf_get_listener_sock(sk);
	if (!full)
		return 0;
	owner = bpf_sk_storage_get(&owners, full, 0, 0);
	return owner ? *owner : 0;
}

static __always_inline void turn(struct ends *ends)
{
	__u16 port = ends->source_port;
	__u32 word;
	int i;

#pragma unroll
	for (i = 0; i < 4; i++) {
		word = ends->source[i];
		ends->source[i] = ends->destination[i];
		ends->destination[i] = word;
	}
	ends->source_port = ends->destination_port;
	ends->destination_port = port;
}

static __always_inline void remember(const struct ends *ends, __u64 owner, __u64 now)
{
	struct sighting *known = bpf_map_lookup_elem(&sightings, ends);
	struct sighting seen = { .owner = owner, .seen_ns = now };

	if (!known || known->owner != owner || now - known->seen_ns > SIGHTING_FRESH_NS)
		bpf_map_update_elem(&sightings, ends, &seen, BPF_ANY);
}

static __always_inline __u64 remembered(const struct ends *ends, __u64 now)
{
	struct sighting *known = bpf_map_lookup_elem(&sightings, ends);

	return known && now - known->seen_ns < SIGHTING_NS ? known->owner : 0;
}

static __always_inline void name_fragment(struct ends *ends, const struct place *place)
{
	ends->protocol = FRAGMENTS;
	ends->source_port = place->id;
	ends->destination_port = place->id >> 16;
}

#endif
