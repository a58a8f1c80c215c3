// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Processes come and go: who follows whom through the filter, and when what we know of a process is void. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/kernel.bpf.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/process.bpf.h"

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid, child_pid;
	__u8 one = 1;

	if (!wanted || !wanted->follow)
		return 0;
	pid = BPF_CORE_READ(parent, tgid);
	child_pid = BPF_CORE_READ(child, tgid);
	if (pid != child_pid && bpf_map_lookup_elem(&pids, &pid) &&
	    bpf_map_update_elem(&pids, &child_pid, &one, BPF_ANY))
		count_loss(table_full_records);
	return 0;
}

/* The process (or the program it ran) is gone: its handles mean nothing any more. */
static __always_inline int end_process(int leave_pids)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct ec_settings *wanted = get_settings();
	struct ec_exit *record;

	if (!wanted)
		return 0;
	if (leave_pids && wanted->follow)
		bpf_map_delete_elem(&pids, &pid);
	if (bpf_map_delete_elem(&processes, &pid))
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		count_loss(end_records);
		return 0;
	}
	fill_header(&record->header, EC_KIND_EXIT, sizeof(*record), bpf_ktime_get_boot_ns());
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	/* the last thread out; the count is already lowered when the tracepoint is reached (kernel/exit.c, do_exit) */
	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	return end_process(1);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec)
{
	return end_process(0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
