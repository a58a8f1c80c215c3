// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What shells are told to do, whole, and how it ended.
 *
 * bash (3.0 to 5.3), whose own binary exports all of these because its loadable builtins need them:
 *   int parse_command(void)                          READ, PARSED    reads one command, of any number of lines
 *   char *readline(const char *prompt)               LINE            one line as typed (readline may be linked in or not)
 *   char *pre_process_line(char *, int, int)         EXPAND(ED)      the line, with its history expanded; NULL: refused
 *   int execute_command_internal(COMMAND *, int background, int pipe_in, int pipe_out, struct fd_bitmap *)
 *   int run_debug_trap(void)                         STEP            before each simple command, which was just printed
 * zsh (4.3 to 5.9), which exports them for its modules:
 *   void hbegin(int)                                 READ            the next command begins
 *   unsigned char *zleread(...)                      LINE            one line as typed (in zsh, or in zle.so)
 *   int hend(Eprog)                                  TAKEN           it is complete: its text is between chline and hptr
 *   void execstring(char *, int, int, char *)        STRING, STRUNG
 *   void execode(Eprog, int, int, char *)            EXECUTE(D)      what was parsed is run, and where it is from
 * dash and busybox (ash.bpf.c has the rest of them):
 *   int evalstring(char *, int)                      STRING, STRUNG
 *
 * The row of a file in "shell_rows" says where its functions and variables are; the attach cookie is the row. How a
 * command ended is what the shell itself keeps for $?, read when it begins to read the next one.
 *
 * Invariants
 * 1. Only the outermost reader of a shell counts: the call whose stack pointer is the highest that was seen. What a
 *    command reads on its way (files, traps, prompt commands) is read by calls further down the stack.
 * 2. A command that begins has an end: by its shell's next command, its shell's exit, or its becoming another program.
 * 3. A text is sent in pieces with their place; what is cut or cannot be read is flagged and counted.
 * 4. A forked copy of a shell has another process id, and so is another shell, of which nothing was typed.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/kernel.bpf.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/shell.bpf.h"

#define INPUT_STRING 3 /* bash, enum stream_type: st_string */
#define NO_PIPE -1
#define PROGRAM_LINES 2 /* zsh: what it parsed, and the structure that says where that is */

/* --- what is typed --- */

static __always_inline int read_next(struct pt_regs *regs, __u32 number)
{
	__u64 frame = frame_at_entry(regs);
	struct place at;

	ENTERED(at, regs, number, reader);
	if (!at.shell || frame < at.shell->top)
		return 0;
	finish(at.shell, at.row);
	at.shell->top = frame;
	at.shell->phase = PHASE_READING;
	return 0;
}

/* bash only: nothing was seen of a command that was typed where neither readline nor history is used. */
static __always_inline void take_unseen(struct shell *shell, const struct ec_shell_row *row)
{
	if (shell->begun || !read_number(shell, row->interactive, 0) || !row->input)
		return;
	if (read_number(shell, row->input, INPUT_STRING) == INPUT_STRING)
		return;
	begin(shell);
}

SEC("uretprobe")
int shell_parsed(struct pt_regs *regs)
{
	struct shell *shell = known_shell(bpf_get_current_pid_tgid() >> 32);
	struct ec_shell_row *row;
	int result = returned(regs);

	if (!shell || frame_at_return(regs) != shell->top)
		return 0;
	row = row_of(shell);
	if (!row)
		return 0;
	if (row->taker) { /* zsh's hend, which has been taken care of at its entry, says whether to run it */
		if (!result)
			shell->phase = PHASE_REFUSED;
		return 0;
	}
	if (shell->phase != PHASE_READING)
		return 0;
	shell->started_ns = bpf_ktime_get_boot_ns();
	shell->phase = PHASE_RUNNING;
	if (result || (row->parsed && !read_pointer(shell->base + row->parsed)))
		shell->phase = PHASE_REFUSED;
	else
		take_unseen(shell, row);
	return 0;
}

SEC("uretprobe")
int shell_line(struct pt_regs *regs)
{
	struct shell *shell = known_shell(bpf_get_current_pid_tgid() >> 32);
	__u64 line = returned(regs);
	struct ec_shell_row *row;

	/* Other programs use readline, too; and a builtin may, while a command runs. Of a command that began before we
	 * came, what follows its first line may be a here-document, whose lines are seen nowhere else. */
	if (!shell || !line || (shell->phase != PHASE_READING && (shell->phase != PHASE_UNKNOWN || !shell->begun)))
		return 0;
	row = row_of(shell);
	if (!row)
		return 0;
	take_line(shell, line, WHOLE, EC_FORM_GIVEN, row->taker ? EC_ENCODING_META : EC_ENCODING_PLAIN);
	shell->told = 1;
	return 0;
}

/* A first line that is not used is a command of its own, which is not run and does not change $?. */
static __always_inline void refuse(struct shell *shell)
{
	struct ending ending = {
		.session = shell->session,
		.command = shell->command,
		.lines = shell->lines,
		.how = EC_ENDING_NOT_RUN,
	};

	send_end(&ending);
	forget(shell);
}

static __always_inline int expand(struct pt_regs *regs, __u32 number)
{
	__u64 line = argument(regs, 0);
	struct place at;

	ENTERED(at, regs, number, expander);
	if (!at.shell || at.shell->phase == PHASE_RUNNING || at.shell->phase == PHASE_REFUSED)
		return 0;
	if (!at.shell->told)
		take_line(at.shell, line, WHOLE, EC_FORM_GIVEN, EC_ENCODING_PLAIN);
	if (at.shell->phase == PHASE_UNKNOWN)
		at.shell->started_ns = bpf_ktime_get_boot_ns();
	at.shell->told = 0;
	at.shell->raw = line;
	return 0;
}

SEC("uretprobe")
int shell_expanded(struct pt_regs *regs)
{
	struct shell *shell = known_shell(bpf_get_current_pid_tgid() >> 32);
	__u64 line = returned(regs);

	if (!shell || !shell->raw)
		return 0;
	if (!line && shell->lines == 1)
		refuse(shell); /* bash goes on to read as if it were blank */
	else if (!line)
		take_line(shell, 0, 0, EC_FORM_REFUSED, EC_ENCODING_PLAIN);
	else if (line != shell->raw)
		take_line(shell, line, WHOLE, EC_FORM_EXPANDED, EC_ENCODING_PLAIN);
	shell->raw = 0;
	return 0;
}

static __always_inline int taken(struct pt_regs *regs, __u32 number)
{
	__u64 frame = frame_at_entry(regs), start, end;
	struct place at;

	ENTERED(at, regs, number, taker);
	if (!at.shell || frame < at.shell->top || at.shell->phase == PHASE_RUNNING)
		return 0;
	at.shell->top = frame;
	at.shell->started_ns = bpf_ktime_get_boot_ns();
	at.shell->phase = argument(regs, 0) ? PHASE_RUNNING : PHASE_REFUSED;
	start = read_pointer(at.shell->base + at.row->text);
	at.shell->typed = start != 0; /* of what is not typed no text is kept (Src/hist.c, hbegin) */
	end = read_pointer(at.shell->base + at.row->text_end);
	if (start && end > start && end - start < WHOLE)
		take_line(at.shell, start, end - start, at.shell->told ? EC_FORM_WHOLE : EC_FORM_GIVEN,
			  EC_ENCODING_META);
	return 0;
}

/* --- what is not typed --- */

/* bash: whether what is executed now comes from elsewhere than a person's lines, and from where. */
static __always_inline int origin_of(const struct shell *shell, const struct ec_shell_row *row)
{
	if (read_number(shell, row->sourced, 0) > 0)
		return EC_ORIGIN_SOURCED;
	if (row->string && read_pointer(shell->base + row->string))
		return EC_ORIGIN_STRING;
	if (read_number(shell, row->interactive, 0))
		return EC_ORIGIN_TYPED;
	/* BASH_INPUT: enum stream_type type; char *name; union { ...; int buffered_fd; } location */
	if (row->input && read_number(shell, row->input + 16, -1) == 0)
		return EC_ORIGIN_INPUT;
	return EC_ORIGIN_SCRIPT;
}

/*
 * Ends the steps that were jumped out of (by "return", or an error), which stand deeper on the stack than "frame": all
 * of them took the status of what they were jumped to.
 */
static __always_inline void end_jumped(struct shell *shell, __u32 pid, __u64 frame, __s32 status)
{
	struct ending ending = {
		.session = shell->session,
		.status = status,
		.has_status = status >= 0,
		.how = EC_ENDING_RETURNED,
	};
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
		ending.command = step->command;
		ending.lines = step->lines;
		ending.started_ns = step->started_ns;
		bpf_map_delete_elem(&steps, &gone);
		if (ending.command)
			send_end(&ending);
	}
	shell->step = key.frame;
}

#define NOT_WANTED 0xff

/* zsh: the same, from what execode is told (Src/init.c: loop, source). */
static __always_inline __u8 origin_in_zsh(const struct shell *shell, const struct ec_shell_row *row, __u64 context)
{
	char name[16] = {};

	bpf_probe_read_user_str(name, sizeof(name), (void *)context);
	if (name[0] == 'f' && name[1] == 'i' && name[2] == 'l' && name[3] == 'e' &&
	    (!name[4] || (name[4] == 'c' && name[5] == 'o' && name[6] == 'd' && name[7] == 'e' && !name[8])))
		return EC_ORIGIN_SOURCED;
	if (name[0] != 't' || name[1] != 'o' || name[2] != 'p' || name[3] != 'l' || name[4] != 'e' || shell->typed)
		return NOT_WANTED;
	return read_pointer(shell->base + row->file) ? EC_ORIGIN_SCRIPT : EC_ORIGIN_INPUT;
}

/* zsh: what it parsed, whose text is put together from that elsewhere. */
static __always_inline void send_program(const struct shell *shell, __u32 command, __u64 program)
{
	struct line line = {
		.address = program,
		.session = shell->session,
		.length = sizeof(struct ec_zsh_eprog),
		.command = command,
		.encoding = EC_ENCODING_WORDCODE,
	};
	struct ec_zsh_eprog head = {};
	__u64 before;

	bpf_probe_read_user(&head, sizeof(head), (void *)program);
	send_line(&line);
	before = 8ULL * head.patterns;
	if (head.words != head.pattern + before || before > head.length)
		before = 0; /* a file that was compiled has its patterns elsewhere (Src/parse.c, try_dump_file) */
	line.address = head.words;
	line.length = head.length - before;
	line.number = 1;
	send_line(&line);
}

static __always_inline int run_program(struct pt_regs *regs, struct place *at, struct step_key *key)
{
	struct ec_settings *wanted = get_settings();
	struct step step = {};
	__u8 origin = origin_in_zsh(at->shell, at->row, argument(regs, 3));

	if (!wanted || origin == NOT_WANTED)
		return 0;
	step.outer = at->shell->step;
	step.started_ns = bpf_ktime_get_boot_ns();
	step.command = ++at->shell->last;
	step.lines = PROGRAM_LINES;
	if (bpf_map_update_elem(&steps, key, &step, BPF_ANY)) {
		count_loss(table_full_records);
		return 0;
	}
	at->shell->step = key->frame;
	send_begin(at->shell, step.command, origin,
		   origin != EC_ORIGIN_INPUT ? at->shell->base + at->row->file : 0, text_limit(wanted));
	send_program(at->shell, step.command, argument(regs, 0));
	return 0;
}

static __always_inline int execute(struct pt_regs *regs, __u32 number)
{
	struct step_key key = { .frame = frame_at_entry(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct step step = {};
	struct place at;

	ENTERED(at, regs, number, executor);
	if (!at.shell || (!at.row->taker && origin_of(at.shell, at.row) == EC_ORIGIN_TYPED))
		return 0;
	if (at.shell->step && at.shell->step < key.frame)
		end_jumped(at.shell, key.pid, key.frame, read_number(at.shell, at.row->status, -1));
	if (at.row->taker)
		return run_program(regs, &at, &key);
	step.outer = at.shell->step;
	step.started_ns = bpf_ktime_get_boot_ns();
	step.left = (__s32)argument(regs, 1) || (__s32)argument(regs, 3) != NO_PIPE;
	if (bpf_map_update_elem(&steps, &key, &step, BPF_ANY)) {
		count_loss(table_full_records);
		return 0;
	}
	at.shell->step = key.frame;
	return 0;
}

SEC("uprobe")
int shell_step(struct pt_regs *regs)
{
	struct step_key key = { .pid = bpf_get_current_pid_tgid() >> 32 };
	struct shell *shell = known_shell(key.pid);
	struct ec_shell_row *row;
	struct line line = {};
	struct step *step;

	/* Prompt commands and completions run while a person's next line is awaited. */
	if (!shell || !shell->step)
		return 0;
	row = row_of(shell);
	if (!row || (shell->phase == PHASE_READING && shell->top && read_number(shell, row->interactive, 0)))
		return 0;
	key.frame = shell->step;
	step = bpf_map_lookup_elem(&steps, &key);
	if (!step || step->command)
		return 0;
	line.address = read_pointer(shell->base + row->printed);
	if (!line.address)
		return 0;
	step->command = ++shell->last;
	step->lines = 1;
	line.session = shell->session;
	line.command = step->command;
	line.length = WHOLE;
	send_begin(shell, step->command, origin_of(shell, row), row->input ? shell->base + row->input + 8 : 0, 0);
	send_line(&line);
	return 0;
}

SEC("uretprobe")
int shell_executed(struct pt_regs *regs)
{
	struct step_key key = { .frame = frame_at_return(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct shell *shell = known_shell(key.pid);
	struct step *step;

	if (!shell)
		return 0;
	step = bpf_map_lookup_elem(&steps, &key);
	if (!step)
		return 0;
	if (shell->step != key.frame) {
		end_jumped(shell, key.pid, key.frame, returned(regs));
		step = bpf_map_lookup_elem(&steps, &key);
		if (!step)
			return 0;
	}
	shell->step = step->outer;
	if (step->command) {
		struct ec_shell_row *row = row_of(shell);
		struct ending ending = {
			.session = shell->session,
			.started_ns = step->started_ns,
			.command = step->command,
			.lines = step->lines,
			.status = returned(regs),
			.how = step->left ? EC_ENDING_LEFT : EC_ENDING_RETURNED,
			.has_status = !step->left,
		};

		if (row && row->taker)
			ending.status = read_number(shell, row->status, 0);
		send_end(&ending);
	}
	bpf_map_delete_elem(&steps, &key);
	return 0;
}

/* Texts are executed for many reasons. That of -c has the context "cmdarg" in zsh (Src/init.c, zsh_main); in dash
 * and busybox it is what main found among its arguments. */
static __always_inline int is_of_command_line(const struct place *at, struct pt_regs *regs)
{
	char context[8] = {};

	if (at->row->source)
		return argument(regs, 0) == read_pointer(variable_of(at->shell, at->row, at->row->string));
	bpf_probe_read_user_str(context, sizeof(context), (void *)argument(regs, 3));
	return context[0] == 'c' && context[1] == 'm' && context[2] == 'd' && context[3] == 'a' && context[4] == 'r';
}

static __always_inline int string(struct pt_regs *regs, __u32 number)
{
	struct line line = { .address = argument(regs, 0), .length = WHOLE, .encoding = EC_ENCODING_META };
	struct place at;

	ENTERED(at, regs, number, stringer);
	if (!at.shell || at.shell->string || !is_of_command_line(&at, regs))
		return 0;
	if (at.row->source)
		line.encoding = EC_ENCODING_PLAIN;
	at.shell->string = frame_at_entry(regs);
	at.shell->string_command = line.command = ++at.shell->last;
	at.shell->started_ns = bpf_ktime_get_boot_ns();
	line.session = at.shell->session;
	send_begin(at.shell, line.command, EC_ORIGIN_STRING, 0, 0);
	send_line(&line);
	return 0;
}

SEC("uretprobe")
int shell_strung(struct pt_regs *regs)
{
	struct shell *shell = known_shell(bpf_get_current_pid_tgid() >> 32);
	struct ending ending = { .lines = 1, .has_status = 1 };
	struct ec_shell_row *row;

	if (!shell || !shell->string || frame_at_return(regs) != shell->string)
		return 0;
	row = row_of(shell);
	if (!row)
		return 0;
	ending.session = shell->session;
	ending.command = shell->string_command;
	ending.started_ns = shell->started_ns;
	ending.status = status_of(shell, row, 0);
	shell->string = 0;
	send_end(&ending);
	return 0;
}

/* --- the end of a shell --- */

/*
 * Ends the innermost step of this process with its shell, as an enum ec_ending says; returns whether there was one. A
 * global function: the verifier walks it once, however often it is called (5.6, commit 51c39bb1d5d1).
 */
__attribute__((noinline)) int end_innermost(__u32 how, __s32 status, __u32 has_status)
{
	struct step_key key = { .pid = bpf_get_current_pid_tgid() >> 32 };
	struct shell *shell = bpf_map_lookup_elem(&shells, &key.pid);
	struct ending ending = { .how = how, .status = status, .has_status = has_status };
	struct step *step;

	if (!shell || !shell->step)
		return 0;
	key.frame = shell->step;
	step = bpf_map_lookup_elem(&steps, &key);
	shell->step = step ? step->outer : 0;
	if (!step)
		return 0;
	ending.session = shell->session;
	ending.command = step->command;
	ending.started_ns = step->started_ns;
	ending.lines = step->lines;
	if (step->phase == PHASE_READING && how == EC_ENDING_EXITED)
		ending.how = EC_ENDING_NOT_RUN;
	else if (step->phase == PHASE_DONE && how != EC_ENDING_EXITED)
		take_done(&ending, step);
	bpf_map_delete_elem(&steps, &key);
	if (ending.command)
		send_end(&ending);
	return 1;
}

/* "task" is the thread that the shell started with: another may be the last to go. */
static __always_inline int end_shell(__u64 task, __u8 how, __s32 status, __u8 has_status)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32, i;
	struct shell *shell = bpf_map_lookup_elem(&shells, &pid);
	struct ending ending = { .how = how, .status = status, .has_status = has_status };

	if (!shell || shell->task != task)
		return 0;
	ending.session = shell->session;
	for (i = 0; i < ENDED_STEPS; i++) {
		if (!end_innermost(how, status, has_status))
			break;
	}
	if (shell->string) {
		ending.command = shell->string_command;
		ending.started_ns = shell->started_ns;
		ending.lines = 1;
		send_end(&ending);
	}
	if (shell->begun) {
		ending.command = shell->command;
		ending.started_ns = shell->started_ns;
		ending.lines = shell->lines;
		if (shell->phase == PHASE_READING && how == EC_ENDING_EXITED)
			ending.how = EC_ENDING_ABANDONED;
		send_end(&ending);
	}
	bpf_map_delete_elem(&shells, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(shell_exit, struct task_struct *task)
{
	__u64 leader = (__u64)BPF_CORE_READ(task, group_leader);
	int code = BPF_CORE_READ(task, exit_code);

	/* the last thread out; the count is already lowered when the tracepoint is reached (kernel/exit.c, do_exit) */
	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	if (code & 0x7f)
		return end_shell(leader, EC_ENDING_KILLED, code & 0x7f, 1);
	return end_shell(leader, EC_ENDING_EXITED, (code >> 8) & 0xff, 1);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(shell_exec)
{
	return end_shell(bpf_get_current_task(), EC_ENDING_REPLACED, 0, 0);
}

BY_FILE(shell_read, read_next)
BY_FILE(shell_expand, expand)
BY_FILE(shell_taken, taken)
BY_FILE(shell_execute, execute)
BY_FILE(shell_string, string)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
