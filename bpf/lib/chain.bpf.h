/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Walks from a library's object to a field in it, in the memory of the program that is observed. */
#ifndef EC_CHAIN_BPF_H
#define EC_CHAIN_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"

/* The address that a chain leads to; 0 if there is none. */
static __always_inline __u64 walk(__u64 at, const struct ec_chain *chain)
{
	__u16 last = chain->first;

	if (!chain->count)
		return 0;
	if (chain->count > 1) {
		if (bpf_probe_read_user(&at, sizeof(at), (void *)(at + last)))
			return 0;
		last = chain->second;
	}
	if (chain->count > 2) {
		if (bpf_probe_read_user(&at, sizeof(at), (void *)(at + last)))
			return 0;
		last = chain->third;
	}
	if (chain->count > 3) {
		if (bpf_probe_read_user(&at, sizeof(at), (void *)(at + last)))
			return 0;
		last = chain->fourth;
	}
	return at ? at + last : 0;
}

static __always_inline int read_field(void *to, __u32 length, __u64 handle, const struct ec_chain *chain)
{
	__u64 at = walk(handle, chain);

	return at ? bpf_probe_read_user(to, length, (void *)at) : -1;
}

/* A number of four bytes, or "missing" where it is not known where it stands. */
static __always_inline __u32 read_number(__u64 handle, const struct ec_chain *chain, __u32 missing)
{
	__u32 number = 0;

	if (!chain->count || read_field(&number, sizeof(number), handle, chain))
		return missing;
	return number;
}

#endif
