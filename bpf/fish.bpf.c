// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What fish is told to do: each command that was typed, whole, and how it ended.
 *
 * fish 3.0 and 3.1, which export what they have:
 *   void reader_run_command(parser_t &parser, const wcstring &cmd)      RUN, RETURNED
 *   void env_stack_t::set_last_statuses(statuses_t)                     STATUS
 * fish 3.2 and later, where the call is hooked by which what reads a terminal runs a command, and the instruction behind:
 *   eval_res_t parser_t::eval(const wcstring &cmd, const io_chain_t &, ...)         RUN, RAN
 *   fn Parser::eval_with(&self, cmd: &wstr, io: &IoChain, ...) -> EvalRes           RUN, RAN
 *
 * A text is a number of characters of four bytes, and is passed on as it stands. fish evaluates prompts, events and files
 * by the same functions: these do so from elsewhere, and cost nothing. A command that stops at a breakpoint has others
 * typed within it, which stand deeper on the stack: that is a step, as in shell.bpf.c.
 *
 * Whether a shell ends with a command is known when it reads another line (NEXT), or ends: until then it is not told how
 * that ended. Where that instruction was not found, every command is one that returned.
 *
 * Invariants
 * 1. Only the thread that fish started with runs commands.
 * 2. A command that begins has an end, as in shell.bpf.c.
 * 3. Where the status is left is in the row of the file; where that says that there is none, none is told.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/shell.bpf.h"

#define SIGNAL_MASK 0x7f
#define CHARACTER 4 /* bytes */

/* The beginning of libstdc++'s std::wstring. */
struct wide_string {
	__u64 text;
	__u64 length;
};

/* This thread's shell; NULL if it is not the one that runs commands, or is not watched. */
static __always_inline struct shell *shell_of_thread(__u32 number)
{
	struct ec_settings *wanted = get_settings();
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 pid = thread >> 32;

	if (!wanted || (__u32)thread != pid || !is_target(wanted, pid))
		return NULL;
	return get_shell(pid, number, 0);
}

/* Ends the steps that stand at a frame or deeper on the stack. */
static __always_inline void end_steps(struct shell *shell, __u32 pid, __u64 frame)
{
	struct step_key key = { .frame = shell->step, .pid = pid };
	__u32 i;

	for (i = 0; i < OUTER_STEPS && key.frame && key.frame <= frame; i++) {
		struct step *step = bpf_map_lookup_elem(&steps, &key);
		struct step_key gone = key;
		struct ending ending = { .session = shell->session, .how = EC_ENDING_RETURNED };

		if (!step) {
			key.frame = 0;
			break;
		}
		if (step->phase == PHASE_DONE)
			take_done(&ending, step);
		ending.command = step->command;
		ending.lines = step->lines;
		ending.started_ns = step->started_ns;
		key.frame = step->outer;
		bpf_map_delete_elem(&steps, &gone);
		send_end(&ending);
	}
	shell->step = key.frame;
}

static __always_inline int run_command(struct pt_regs *regs, __u32 number)
{
	struct step_key key = { .frame = frame_at_entry(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct ec_shell_row *row = bpf_map_lookup_elem(&shell_rows, &number);
	struct wide_string given = { .text = argument(regs, 2), .length = argument(regs, 3) };
	struct ec_settings *wanted = get_settings();
	struct shell *shell = shell_of_thread(number);
	struct line line = { .encoding = EC_ENCODING_WIDE };
	struct step step = { .lines = 1 };

	if (!shell || !row || !wanted)
		return 0;
	if (row->wide_text == EC_WIDE_STRING &&
	    bpf_probe_read_user(&given, sizeof(given), (void *)argument(regs, 1))) {
		count_loss(fault_records);
		return 0;
	}
	end_steps(shell, key.pid, key.frame);
	step.outer = shell->step;
	step.started_ns = bpf_ktime_get_boot_ns();
	step.file = argument(regs, 0);
	step.command = ++shell->last;
	/* one of that length cannot be had in memory: what cannot be read is said where it is read */
	line.length = given.length < WHOLE / CHARACTER ? given.length * CHARACTER : WHOLE - 1;
	line.address = given.text;
	line.session = shell->session;
	line.command = step.command;
	if (bpf_map_update_elem(&steps, &key, &step, BPF_ANY)) {
		count_loss(table_full_records);
		return 0;
	}
	shell->step = key.frame;
	send_begin(shell, step.command, EC_ORIGIN_TYPED, 0, text_limit(wanted));
	send_line(&line);
	return 0;
}

/* How the command ended that stands at "frame"; "status" is what the function that ran it returned. */
static __always_inline int end_command(__u64 frame, __u64 status)
{
	struct step_key key = { .frame = frame, .pid = bpf_get_current_pid_tgid() >> 32 };
	struct step *step = bpf_map_lookup_elem(&steps, &key);
	struct shell *shell = known_shell(key.pid);
	struct ec_shell_row *row;

	if (!shell || !step)
		return 0;
	row = row_of(shell);
	if (!row)
		return 0;
	step->phase = PHASE_DONE;
	step->last = bpf_ktime_get_boot_ns();
	step->typed = 1;
	if (row->wide_status == EC_STATUS_SET) {
		step->last_number = shell->status;
		step->typed = shell->told;
	} else {
		if (row->wide_status != EC_STATUS_RETURNED && bpf_probe_read_user(&status, sizeof(status), (void *)step->file))
			status = SIGNAL_MASK;
		if (row->wide_status == EC_STATUS_OPTION) {
			step->typed = (__u32)status == 1;
			status >>= 32;
		} else if (status >> 32 & 0xff) {
			step->typed = 0;
		}
		step->last_number = (__u32)status >> 8 & 0xff;
		if (status & SIGNAL_MASK)
			step->typed = 0; /* it was given up, which $status does not tell */
	}
	if (!row->loop || shell->step != frame)
		end_steps(shell, key.pid, frame);
	return 0;
}

SEC("uprobe")
int fish_ran(struct pt_regs *regs)
{
	return end_command(frame_at_entry(regs), returned(regs));
}

SEC("uretprobe")
int fish_returned(struct pt_regs *regs)
{
	return end_command(frame_at_return(regs), 0);
}

SEC("uprobe")
int fish_next(struct pt_regs *regs)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct shell *shell = known_shell(pid);

	if (shell && shell->step)
		end_steps(shell, pid, frame_at_entry(regs));
	return 0;
}

static __always_inline int set_status(struct pt_regs *regs, __u32 number)
{
	struct shell *shell = shell_of_thread(number);
	__s32 status;

	if (!shell)
		return 0;
	shell->told = !bpf_probe_read_user(&status, sizeof(status), (void *)argument(regs, 1));
	if (shell->told)
		shell->status = status;
	return 0;
}

BY_FILE(fish_run, run_command)
BY_FILE(fish_status, set_status)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
