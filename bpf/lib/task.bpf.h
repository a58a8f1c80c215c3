/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Who and where the current task is: login, terminal, working directory. Without kernel types nothing is known. */
#ifndef EC_TASK_BPF_H
#define EC_TASK_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "../wire.h"
#include "kernel.bpf.h"

#define NO_LOGIN 0xffffffff
#define NAME_MAXIMUM 256 /* NAME_MAX and the NUL */
#define DIRECTORY_STEPS 128

static __always_inline __u32 login_uid(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (!bpf_core_field_exists(task->loginuid))
		return NO_LOGIN;
	return BPF_CORE_READ(task, loginuid.val);
}

static __always_inline void read_terminal(__u8 *name)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct tty_struct *tty;

	name[0] = 0;
	if (!bpf_core_field_exists(task->signal->tty))
		return;
	tty = BPF_CORE_READ(task, signal, tty);
	if (!tty || bpf_probe_read_kernel_str(name, EC_TERMINAL_LENGTH, (void *)tty + bpf_core_field_offset(struct tty_struct, name)) < 0)
		name[0] = 0;
}

/* A walk from the working directory of the current task to its root. */
struct walk {
	__u64 dentry;
	__u64 mount;
	__u64 root_dentry;
	__u64 root_mount;
	__u32 at;    /* bytes written */
	__u32 _padding;
};

/* False where the kernel shows no types: then there is nothing to walk. */
static __always_inline int begin_walk(struct walk *walk)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fs_struct *fs;

	if (!bpf_core_field_exists(task->fs) || !bpf_core_type_exists(struct mount))
		return 0;
	fs = BPF_CORE_READ(task, fs);
	walk->dentry = (__u64)BPF_CORE_READ(fs, pwd.dentry);
	walk->mount = (__u64)BPF_CORE_READ(fs, pwd.mnt);
	walk->root_dentry = (__u64)BPF_CORE_READ(fs, root.dentry);
	walk->root_mount = (__u64)BPF_CORE_READ(fs, root.mnt);
	walk->at = 0;
	return 1;
}

enum step_result { WALK_ON, WALK_DONE, WALK_FAILED };

/*
 * One step up: writes the name of a directory with its NUL to "names", which has room for "room" bytes (a power of two)
 * and NAME_MAXIMUM more; or leaves a mounted file system. As d_path does (fs/d_path.c, prepend_path), without its locks:
 * a directory that is moved at this very moment may appear under either name.
 */
static __always_inline int step_up(struct walk *walk, __u8 *names, const __u32 room)
{
	struct dentry *dentry = (void *)walk->dentry, *parent;
	struct vfsmount *mount = (void *)walk->mount;
	__u32 place = walk->at;
	long length;

	/* A kernel that shows no types answers no, and the reads below are then dead code, also for a verifier that looks
	 * at the loop by itself. */
	if (!bpf_core_field_exists(dentry->d_parent))
		return WALK_FAILED;
	if (walk->dentry == walk->root_dentry && walk->mount == walk->root_mount)
		return WALK_DONE;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (dentry == BPF_CORE_READ(mount, mnt_root) || dentry == parent) {
		struct mount *here = (void *)mount - bpf_core_field_offset(struct mount, mnt);
		struct mount *above = BPF_CORE_READ(here, mnt_parent);

		if (above == here) /* outside of the task's root */
			return WALK_FAILED;
		walk->dentry = (__u64)BPF_CORE_READ(here, mnt_mountpoint);
		walk->mount = (__u64)above + bpf_core_field_offset(struct mount, mnt);
		return WALK_ON;
	}
	/* the verifier must see the bound on the very register it adds */
	asm volatile("" : "+r"(place));
	place &= room - 1;
	length = bpf_probe_read_kernel_str(names + place, NAME_MAXIMUM, BPF_CORE_READ(dentry, d_name.name));
	if (length <= 0)
		return WALK_FAILED;
	walk->at += length;
	walk->dentry = (__u64)parent;
	return walk->at < room ? WALK_ON : WALK_FAILED;
}

#endif
