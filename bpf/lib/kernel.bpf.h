/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The few kernel types we read, with only the members we read; libbpf finds the real offsets (CO-RE). */
#ifndef EC_KERNEL_BPF_H
#define EC_KERNEL_BPF_H

#include <linux/types.h>
#include "../wire.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport; /* network byte order */
	__u16 skc_num;	 /* host byte order */
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
};

struct file;

struct socket {
	struct file *file;
	struct sock *sk;
};

struct file {
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct tty_struct {
	char name[64];
};

struct signal_struct {
	atomic_t live;
	struct tty_struct *tty;
};

struct login_uid {
	__u32 val; /* a kuid_t */
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	char comm[EC_COMM_LENGTH];
	struct task_struct *group_leader;
	struct login_uid loginuid;
	struct fs_struct *fs;
	struct files_struct *files;
	struct signal_struct *signal;
};

#pragma clang attribute pop

#endif
