// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What dash and busybox are told to do: each complete command as it was read, and how it ended.
 *
 * dash (0.5.6 to 0.5.12) and busybox (1.30 to 1.37), whose functions are found by what they do:
 *   union node *parsecmd(int interact)               READ, PARSED    reads one command, of any number of lines
 *   int preadbuffer(void)                            LINE            its return: the next line stands in the buffer
 *   int cmdloop(int top)                             LOOPED          a file was read to its end, or left
 * What -c gives is SHELL_STRING of shell.bpf.c, and so are the ends of shells.
 *
 * Every call of cmdloop calls parsecmd from one place on the stack: that is a step, from the first line of a command
 * until the next one is awaited there, or further up the stack. evalstring calls parsecmd, too (eval, traps): what that
 * reads is part of the command that made it do so, and is known by the address to which parsecmd returns.
 *
 * Invariants
 * 1. A line is one only where the byte that preadbuffer returns is its first: it then stands at the beginning of the
 *    buffer or behind a line feed. What an alias or a text is continued with is neither.
 * 2. A line belongs to the step whose file it is from.
 * 3. A command that begins has an end, as in shell.bpf.c.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/shell.bpf.h"

#define STATUS_INTERRUPTED 130 /* main.c: what $? is after SIGINT */
#define LINE_MAXIMUM (1 << 20)
#define ALL_ONES (~0ULL) /* busybox: the mark that the input has ended */

/* The beginning of struct parsefile (dash: src/input.h; busybox: shell/ash.c). */
struct parsefile {
	__u64 outer; /* what is gone on with when this ends; 0: it is the first */
	__s32 line_number;
	__s32 descriptor;
	__s32 left; /* of the line, behind "next" */
	__s32 left_in_buffer;
	__u64 next;
	__u64 buffer;
};

/* How the command of a step ended, whose shell awaits the next one there, or is further up the stack already. */
static __always_inline void end_step(struct shell *shell, struct step *step, __s32 status)
{
	struct ending ending = {
		.session = shell->session,
		.started_ns = step->started_ns,
		.command = step->command,
		.lines = step->lines,
		.status = status,
		.has_status = status >= 0,
		.how = EC_ENDING_RETURNED,
	};

	if (step->late)
		ending.how = EC_ENDING_RETURNED;
	else if (step->phase == PHASE_READING && step->typed && status == STATUS_INTERRUPTED)
		ending.how = EC_ENDING_ABANDONED;
	else if (step->phase != PHASE_RUNNING)
		ending.how = EC_ENDING_NOT_RUN;
	if (step->phase == PHASE_REFUSED && !step->typed)
		ending.has_status = 0; /* a remark of a file */
	if (step->command)
		send_end(&ending);
}

/* Ends the steps that stand deeper on the stack than "frame". */
static __always_inline void end_deeper(struct shell *shell, __u32 pid, __u64 frame, __s32 status)
{
	struct step_key key = { .frame = shell->step, .pid = pid };
	__u32 i;

	for (i = 0; i < OUTER_STEPS && key.frame && key.frame < frame; i++) {
		struct step *step = bpf_map_lookup_elem(&steps, &key);
		struct step_key gone = key;

		if (!step) {
			key.frame = 0;
			break;
		}
		key.frame = step->outer;
		end_step(shell, step, status);
		bpf_map_delete_elem(&steps, &gone);
	}
	shell->step = key.frame;
}

static __always_inline __u8 origin_of_file(const struct parsefile *file)
{
	if (file->outer)
		return EC_ORIGIN_SOURCED;
	return file->descriptor ? EC_ORIGIN_SCRIPT : EC_ORIGIN_INPUT;
}

/* Opens the step that stands at "frame", for what is read from "from". */
static __always_inline struct step *open_step(struct shell *shell, const struct step_key *key, __u64 from, __u8 typed)
{
	struct step step = { .outer = shell->step, .file = from, .typed = typed, .phase = PHASE_READING };

	if (bpf_map_update_elem(&steps, key, &step, BPF_ANY)) {
		count_loss(table_full_records);
		return NULL;
	}
	shell->step = key->frame;
	return bpf_map_lookup_elem(&steps, key);
}

static __always_inline int read_command(struct pt_regs *regs, __u32 number)
{
	struct step_key key = { .frame = frame_at_entry(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct ec_shell_row *row = bpf_map_lookup_elem(&shell_rows, &number);
	__u8 typed = (__u8)argument(regs, 0) != 0;
	struct step *step;
	struct place at;
	__u64 caller;
	__s32 status;

	if (!row)
		return 0;
	caller = return_address(regs) - (instruction(regs) - row->reader);
	if (!typed && (caller < row->loop || caller >= row->loop_end))
		return 0;
	ENTERED(at, regs, number, reader);
	if (!at.shell)
		return 0;
	status = status_of(at.shell, row, -1);
	end_deeper(at.shell, key.pid, key.frame, status);
	step = bpf_map_lookup_elem(&steps, &key);
	if (step && at.shell->step == key.frame) {
		end_step(at.shell, step, status);
		step->command = 0;
		step->lines = 0;
		step->kept = 0;
		step->started_ns = 0;
		step->late = 0;
		step->last = 0;
		step->phase = PHASE_READING;
		step->typed = typed;
		step->file = read_pointer(at.shell->base + row->source);
		return 0;
	}
	open_step(at.shell, &key, read_pointer(at.shell->base + row->source), typed);
	return 0;
}

/* A command was read: 0 is none, such as a remark; and so is the mark that the input has ended. */
SEC("uretprobe")
int ash_parsed(struct pt_regs *regs)
{
	struct step_key key = { .frame = frame_at_return(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct shell *shell = known_shell(key.pid);
	__u64 tree = returned(regs);
	struct ec_shell_row *row;
	struct step *step;

	if (!shell || shell->step != key.frame)
		return 0;
	row = row_of(shell);
	step = bpf_map_lookup_elem(&steps, &key);
	if (!row || !step)
		return 0;
	step->started_ns = bpf_ktime_get_boot_ns();
	step->phase = PHASE_RUNNING;
	if (tree && tree != (row->parsed ? shell->base + row->parsed : ALL_ONES))
		return 0;
	step->phase = PHASE_REFUSED;
	if (tree) {
		end_step(shell, step, status_of(shell, row, -1));
		shell->step = step->outer;
		bpf_map_delete_elem(&steps, &key);
	}
	return 0;
}

static __always_inline void take_line_of(struct shell *shell, const struct ec_shell_row *row, struct step *step,
					 const struct parsefile *file)
{
	struct line line = {
		.address = file->next - 1,
		.session = shell->session,
		.length = (__u32)file->left + 1,
		.encoding = EC_ENCODING_READ,
	};
	__u8 origin = step->typed ? EC_ORIGIN_TYPED : origin_of_file(file);
	__u64 place = 0;

	if (!step->command) {
		step->command = ++shell->last;
		if (origin == EC_ORIGIN_SOURCED && row->sourced_name)
			place = shell->base + row->sourced_name;
		else if (origin == EC_ORIGIN_SCRIPT && row->file)
			place = variable_of(shell, row, row->file);
		send_begin(shell, step->command, origin, place, 0);
	}
	line.command = step->command;
	line.number = step->lines++;
	line.kept = step->kept;
	send_line(&line);
	step->kept = line.kept;
}

static __always_inline int take_line_at(struct pt_regs *regs, __u32 number)
{
	struct step_key key = { .pid = bpf_get_current_pid_tgid() >> 32 };
	struct ec_shell_row *row = bpf_map_lookup_elem(&shell_rows, &number);
	struct shell *shell = known_shell(key.pid);
	struct parsefile file = {};
	struct step *step = NULL;
	__u8 before[2] = {};
	struct place at;
	__u64 from, base;
	__s32 result;

	if (!row)
		return 0;
	base = instruction(regs) - row->line;
	from = read_pointer(base + row->source);
	if (bpf_probe_read_user(&file, sizeof(file), (void *)from) || file.left < 0 || file.left >= LINE_MAXIMUM)
		return 0;
	if (!shell || !shell->step) {
		/* It waited at its prompt before we came, and is further up the stack when it awaits the next command. */
		__u8 typed = 0;

		if (bpf_probe_read_user(&typed, sizeof(typed), (void *)(base + row->interactive)) || !typed || file.outer)
			return 0;
		ENTERED(at, regs, number, line);
		if (!at.shell)
			return 0;
		shell = at.shell;
		key.frame = frame_at_entry(regs);
		step = open_step(shell, &key, from, 1);
		if (step)
			step->late = 1;
	} else {
		key.frame = shell->step;
		step = bpf_map_lookup_elem(&steps, &key);
	}
	if (!step || step->phase != PHASE_READING || step->file != from)
		return 0;
	if (file.next - 1 == file.buffer) {
		before[0] = '\n';
		bpf_probe_read_user(before + 1, 1, (void *)(file.next - 1));
	} else {
		bpf_probe_read_user(before, sizeof(before), (void *)(file.next - sizeof(before)));
	}
	result = returned(regs);
	if (before[0] != '\n' || before[1] != (__u8)result || result < -128 || result > 255)
		return 0; /* -129 and 256 are the end */
	/* What an alias was continued with is returned once more by what asked for it, further up the stack. */
	if (step->last == file.next && step->last_number == (__u32)file.line_number &&
	    step->last_frame < frame_at_entry(regs))
		return 0;
	step->last = file.next;
	step->last_number = file.line_number;
	step->last_frame = frame_at_entry(regs);
	step->started_ns = bpf_ktime_get_boot_ns(); /* until it is known better */
	take_line_of(shell, row, step, &file);
	return 0;
}

SEC("uretprobe")
int ash_looped(struct pt_regs *regs)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct shell *shell = known_shell(pid);
	struct ec_shell_row *row;

	if (!shell || !shell->step)
		return 0;
	row = row_of(shell);
	if (row)
		end_deeper(shell, pid, frame_at_return(regs), status_of(shell, row, -1));
	return 0;
}

BY_FILE(ash_read, read_command)
BY_FILE(ash_line, take_line_at)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
