// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Notes for every IPv4 and IPv6 socket which process it belongs to: who made it, or had it open when we started, and
 * from then on who sends or receives through it. Sockets that a listening one accepts inherit its owner until then.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/kernel.bpf.h"
#include "lib/target.bpf.h"
#include "lib/owner.bpf.h"

/* Cgroups that are wanted and all below them, as they were at the start: for sockets that were made before. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} cgroup_ids SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct___owner {
	int tgid;
	char comm[EC_COMM_LENGTH];
	const struct cred *cred;
	struct css_set *cgroups;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

enum { LEVELS = 16 };

static __always_inline int is_inet(__u16 family)
{
	return family == EC_FAMILY_IPV4 || family == EC_FAMILY_IPV6;
}

static __always_inline void describe_current(struct ec_owner *owner)
{
	owner->pid = bpf_get_current_pid_tgid() >> 32;
	owner->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(owner->comm, sizeof(owner->comm));
}

SEC("cgroup/sock_create")
int socket_create(struct bpf_sock *sk)
{
	struct ec_settings *wanted = get_settings();
	struct ec_owner owner = {};
	__u64 number;
	int level;

	describe_current(&owner);
	if (wanted && wanted->cgroup_count) {
		for (level = 0; level < LEVELS; level++) {
			__u64 id = bpf_get_current_ancestor_cgroup_id(level);

			if (!id)
				break;
			if (bpf_map_lookup_elem(&cgroup_ids, &id)) {
				owner.in_cgroup = 1;
				break;
			}
		}
	}
	number = keep_owner(&owner);
	if (number)
		bpf_sk_storage_get(&owners, sk, &number, BPF_SK_STORAGE_GET_F_CREATE);
	return 1; /* this program decides nothing: the socket may be made */
}

static __always_inline int note_use(struct sock *sk)
{
	struct ec_settings *wanted = get_settings();
	struct ec_owner owner = {};
	__u64 number, *known;
	__u32 i;

	if (!wanted || !is_inet(sk->__sk_common.skc_family))
		return 0;
	describe_current(&owner);
	for (i = 0; i < EC_CGROUPS_MAXIMUM; i++) {
		if (i >= wanted->cgroup_count)
			break;
		if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
			owner.in_cgroup = 1;
	}
	number = keep_owner(&owner);
	if (!number)
		return 0;
	known = bpf_sk_storage_get(&owners, sk, &number, BPF_SK_STORAGE_GET_F_CREATE);
	if (known && *known != number)
		*known = number;
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(socket_sent, struct sock *sk)
{
	return note_use(sk);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(socket_received, struct sock *sk)
{
	return note_use(sk);
}

/* Of several processes that hold a socket the wanted one counts; else the first, which is the one that passed it on. */
SEC("iter/task_file")
int socket_held(struct bpf_iter__task_file *ctx)
{
	struct task_struct___owner *task = (void *)ctx->task;
	struct ec_settings *wanted = get_settings();
	struct file *file = ctx->file;
	struct ec_owner owner = {};
	struct socket *socket;
	__u64 number, *known, id;
	struct sock *sk;

	if (!task || !file || !wanted)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || !is_inet(sk->__sk_common.skc_family))
		return 0;
	owner.pid = BPF_CORE_READ(task, tgid);
	owner.uid = BPF_CORE_READ(task, cred, uid.val);
	BPF_CORE_READ_INTO(&owner.comm, task, comm);
	if (wanted->cgroup_count) {
		id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
		owner.in_cgroup = bpf_map_lookup_elem(&cgroup_ids, &id) != 0;
	}
	number = keep_owner(&owner);
	if (!number)
		return 0;
	known = bpf_sk_storage_get(&owners, sk, &number, BPF_SK_STORAGE_GET_F_CREATE);
	if (known && *known != number && wanted->by_pid && bpf_map_lookup_elem(&pids, &owner.pid))
		*known = number;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
