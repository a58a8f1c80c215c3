/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* From a socket, or from a file descriptor of the current task, to both addresses. */
#ifndef EC_SOCKET_BPF_H
#define EC_SOCKET_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "../wire.h"
#include "kernel.bpf.h"

/* Addresses of an IPv4 or IPv6 socket; source stays NONE while it is not connected. */
static __always_inline void read_socket(struct ec_tuple_value *tuple, const struct sock *sk, __u16 source)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u16 remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));

	if (family != EC_FAMILY_IPV4 && family != EC_FAMILY_IPV6) {
		tuple->source = family == EC_FAMILY_UNIX ? EC_TUPLE_UNIX : EC_TUPLE_NOT_INET;
		return;
	}
	if (!remote_port)
		return;
	if (family == EC_FAMILY_IPV4) {
		__u32 local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__u32 remote = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		__builtin_memcpy(tuple->local, &local, sizeof(local));
		__builtin_memcpy(tuple->remote, &remote, sizeof(remote));
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)tuple->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)tuple->remote, sk, __sk_common.skc_v6_daddr);
	}
	tuple->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	tuple->remote_port = remote_port;
	tuple->family = family;
	tuple->source = source;
}

/* fd of the current task -> socket -> addresses. */
static __always_inline void read_descriptor(struct ec_tuple_value *tuple, __s32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table;
	struct file *file = NULL;
	struct file **files;
	struct socket *socket;
	struct sock *sk;

	/* A kernel that shows no types answers no, and the reads below are then dead code. */
	if (!bpf_core_field_exists(task->files)) {
		tuple->source = EC_TUPLE_UNREADABLE;
		return;
	}
	table = BPF_CORE_READ(task, files, fdt);
	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if (!file)
		return;
	socket = BPF_CORE_READ(file, private_data);
	/* Only a socket points back at its file; anything else keeps something else in private_data. */
	if (!socket || BPF_CORE_READ(socket, file) != file) {
		tuple->source = EC_TUPLE_NOT_INET;
		return;
	}
	sk = BPF_CORE_READ(socket, sk);
	if (sk)
		read_socket(tuple, sk, EC_TUPLE_DESCRIPTOR);
}

#endif
