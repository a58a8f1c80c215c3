/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Is this task one that we were asked to watch? The answer lives in maps, so it can change while we run. */
#ifndef EC_TARGET_BPF_H
#define EC_TARGET_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "../wire.h"
#include "kernel.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ec_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u8);
} pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u8);
} uids SEC(".maps");

struct comm {
	char name[EC_COMM_LENGTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct comm);
	__type(value, __u8);
} comms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, EC_CGROUPS_MAXIMUM);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} cgroups SEC(".maps");

static __always_inline struct ec_settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* By the name of this thread, or by that of its process, which is that of the thread that it began with. A function of
 * its own: what it keeps on the stack must not add to that of large programs. */
static __attribute__((noinline, unused)) int has_wanted_name(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct comm comm = {}, first = {};

	bpf_get_current_comm(comm.name, sizeof(comm.name));
	if (bpf_map_lookup_elem(&comms, &comm))
		return 1;
	if (!bpf_core_field_exists(task->group_leader))
		return 0;
	/* as text: behind its end may be what is left of a longer name that it had before */
	BPF_CORE_READ_STR_INTO(&first.name, task, group_leader, comm);
	return bpf_map_lookup_elem(&comms, &first) != NULL;
}

static __always_inline int is_target(const struct ec_settings *wanted, __u32 pid)
{
	if (pid == wanted->excluded_pid)
		return 0;
	if (wanted->by_pid && !bpf_map_lookup_elem(&pids, &pid))
		return 0;
	if (wanted->by_uid) {
		__u32 uid = bpf_get_current_uid_gid();

		if (!bpf_map_lookup_elem(&uids, &uid))
			return 0;
	}
	if (wanted->by_comm && !has_wanted_name())
		return 0;
	if (wanted->cgroup_count) {
		__u32 i;

		for (i = 0; i < EC_CGROUPS_MAXIMUM; i++) {
			if (i >= wanted->cgroup_count)
				return 0;
			/* true for descendants as well (kernel/bpf/helpers, task_under_cgroup_hierarchy) */
			if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
				return 1;
		}
		return 0;
	}
	return 1;
}

#endif
