/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What is known of a shell while it runs, and what is sent of its commands: who and where, text, end.
 *
 * Records are put together in a map, because a text may be long and the stack is short; global functions, which the
 * verifier walks once whoever calls them, find them there.
 */
#ifndef EC_SHELL_BPF_H
#define EC_SHELL_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"
#include "emit.bpf.h"
#include "registers.bpf.h"
#include "target.bpf.h"
#include "task.bpf.h"

enum phase {
	PHASE_UNKNOWN, /* we came while it read or ran something */
	PHASE_READING,
	PHASE_RUNNING,
	PHASE_REFUSED, /* what was read is not a command */
	PHASE_DONE,    /* fish: it has returned, and may be what the shell ends with */
};

#define OUTER_STEPS 16
#define ENDED_STEPS 4096 /* with their shell: each call of a function is some */
#define WHOLE 0xffffffffu

struct shell {
	__u64 session;
	__u64 task;   /* whose it is: a process id may be used again unnoticed */
	__u64 base;   /* where the file is loaded, less its address there */
	__u64 top;    /* stack pointer of the outermost reader */
	__u64 started_ns;
	__u64 raw;    /* the line whose history is being expanded */
	__u64 step;   /* frame of the innermost command that is executed; 0: none */
	__u64 string; /* frame of execstring; 0: none */
	__u32 command; /* number of what is read or run, once it has begun */
	__u32 last;    /* the highest number given */
	__u32 lines;
	__u32 kept; /* bytes */
	__u32 row;
	__u32 string_command;
	__u8 phase;
	__u8 begun;
	__u8 told; /* readline returned the line that may be expanded next; fish: status is known */
	__u8 typed; /* zsh: what runs at its top level was */
	__s32 status; /* fish: what $status was set to */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct shell);
} shells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_SHELL_ROWS);
	__type(key, __u32);
	__type(value, struct ec_shell_row);
} shell_rows SEC(".maps");

struct step_key {
	__u64 frame;
	__u32 pid;
	__u32 _padding;
};

/* A command that a shell executes, in the frame of execute_command_internal; of dash, what parsecmd reads there. */
struct step {
	__u64 outer; /* frame of the step it is part of */
	__u64 started_ns;
	__u64 file;    /* fish: where its status will be left; dash: what its lines are read from, */
	__u64 last;    /* where the last one stood (fish: when it returned), */
	__u64 last_frame; /* and the stack pointer then */
	__u32 command; /* 0: it has no text (yet) */
	__u32 lines;   /* of its text */
	__u32 kept;    /* bytes of it */
	__u32 last_number; /* fish: its status */
	__u8 left;     /* runs beside its shell */
	__u8 phase;    /* dash: enum phase */
	__u8 typed;    /* dash; fish: it has a status */
	__u8 late;     /* dash: it was being read when we came, so that the end of that will not be seen */
	__u32 _padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct step_key);
	__type(value, struct step);
} steps SEC(".maps");

/* What is sent of a text: one line of a command. */
struct line {
	__u64 address;
	__u64 session;
	__u32 length; /* WHOLE: up to the NUL */
	__u32 command;
	__u32 number;
	__u32 kept; /* of this command so far; is advanced */
	__u8 form;
	__u8 encoding;
	__u8 _padding[6];
};

#define PLACE_MAXIMUM 4096     /* PATH_MAX */
#define DIRECTORY_MAXIMUM 4096

/* Where a record is put together, since the stack is too small; and what is handed to a global function, which takes
 * numbers only but is verified once, whoever calls it. One for each thread that does so at the moment. */
struct draft {
	struct line line;
	struct walk walk;
	union {
		struct {
			struct ec_shell_text head;
			__u8 bytes[EC_SHELL_PIECE];
		} text;
		struct {
			struct ec_shell_begin head;
			__u8 bytes[PLACE_MAXIMUM + DIRECTORY_MAXIMUM + NAME_MAXIMUM];
		} begin;
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, struct draft);
} drafts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct draft);
} empty_draft SEC(".maps");

static __always_inline struct draft *get_draft(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&drafts, &thread);
}

static __always_inline struct draft *begin_draft(void)
{
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 zero = 0;
	struct draft *empty = bpf_map_lookup_elem(&empty_draft, &zero);

	if (!empty || bpf_map_update_elem(&drafts, &thread, empty, BPF_ANY)) {
		count_loss(table_full_records);
		return NULL;
	}
	return get_draft();
}

static __always_inline void end_draft(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&drafts, &thread);
}

static __always_inline void send(struct ec_settings *wanted, void *record, __u32 size)
{
	if (bpf_ringbuf_output(&events, record, size, wakeup_flags(wanted, size)))
		count_lost_bytes(ring_full_records, ring_full_bytes, size);
}

static __always_inline __u64 read_pointer(__u64 place)
{
	__u64 value = 0;

	bpf_probe_read_user(&value, sizeof(value), (void *)place);
	return value;
}

/* A variable of the shell: a number of four bytes, or "missing" where it has no such variable. */
static __always_inline __s32 read_number(const struct shell *shell, __u64 variable, __s32 missing)
{
	__s32 value;

	if (!variable || bpf_probe_read_user(&value, sizeof(value), (void *)(shell->base + variable)))
		return missing;
	return value;
}

/* Where a variable of dash or busybox is. */
static __always_inline __u64 variable_of(const struct shell *shell, const struct ec_shell_row *row, __u64 variable)
{
	__u64 before = shell->base;

	if (row->members)
		before = read_pointer(shell->base + row->members);
	return before + variable;
}

/* What $? is; "missing" where that is not known. */
static __always_inline __s32 status_of(const struct shell *shell, const struct ec_shell_row *row, __s32 missing)
{
	__u8 value;

	if (!row->members)
		return read_number(shell, row->status, missing);
	if (bpf_probe_read_user(&value, sizeof(value), (void *)variable_of(shell, row, row->status)))
		return missing;
	return value;
}

/* --- records --- */

#define LINE_PIECES (EC_SHELL_MAXIMUM / (EC_SHELL_PIECE - 1) + 2)

/* Sends a piece of the line in this thread's draft. Returns 1 if it was the last. */
__attribute__((noinline)) int send_piece(__u32 limit)
{
	struct ec_settings *wanted = get_settings();
	struct draft *draft = get_draft();
	__u16 flags = EC_FLAG_LAST;
	__u32 room;
	__u64 size;
	long got;

	if (!draft || !wanted)
		return 1;
	room = draft->line.kept < limit ? limit - draft->line.kept : 0;
	if (draft->line.length == WHOLE) {
		got = bpf_probe_read_user_str(draft->text.bytes, EC_SHELL_PIECE, (void *)draft->line.address);
		if (got > 0)
			got--; /* the NUL */
		if (got == EC_SHELL_PIECE - 1)
			flags = 0;
	} else {
		size = draft->line.length;
		asm volatile("" : "+r"(size));
		if (size > EC_SHELL_PIECE - 1) {
			size = EC_SHELL_PIECE - 1;
			flags = 0;
		}
		got = size;
		if (bpf_probe_read_user(draft->text.bytes, size, (void *)draft->line.address))
			got = -1;
		draft->line.length -= size;
	}
	size = got;
	if (got < 0) {
		flags = EC_FLAG_FAULT | EC_FLAG_LAST;
		count_loss(fault_records);
		size = 0;
	} else if (got > room) {
		flags = EC_FLAG_TRUNCATED | EC_FLAG_LAST;
		count_lost_bytes(truncated_calls, truncated_bytes, got - room);
		size = room;
	}
	/* the verifier must see the bound on the very register it passes on */
	asm volatile("" : "+r"(size));
	if (size > EC_SHELL_PIECE)
		size = EC_SHELL_PIECE;
	draft->line.kept += size;
	draft->line.address += size;
	draft->text.head.header.flags = flags;
	draft->text.head.header.size = sizeof(struct ec_shell_text) + size;
	send(wanted, &draft->text, sizeof(struct ec_shell_text) + size);
	draft->text.head.offset += size;
	return flags != 0;
}

/* A piece that ends where the text does looks as if more came; the next is then empty. */
__attribute__((noinline)) int send_pieces(__u32 limit)
{
	__u32 i;

	for (i = 0; i < LINE_PIECES; i++) {
		if (send_piece(limit))
			break;
	}
	return 0;
}

/* Bytes to keep of the text of one command. */
static __always_inline __u32 text_limit(const struct ec_settings *wanted)
{
	if (wanted->payload_limit == ~0ULL)
		return EC_SHELL_LIMIT;
	return wanted->payload_limit < EC_SHELL_MAXIMUM ? wanted->payload_limit : EC_SHELL_MAXIMUM;
}

static __always_inline void send_line(struct line *line)
{
	struct ec_settings *wanted = get_settings();
	struct draft *draft = begin_draft();
	__u32 limit;

	if (!draft || !wanted)
		return;
	limit = text_limit(wanted);
	if (line->encoding == EC_ENCODING_WORDCODE)
		limit = EC_SHELL_MAXIMUM;
	else if (line->encoding == EC_ENCODING_WIDE) /* no character is shorter than a byte where it is cut */
		limit = limit < EC_SHELL_MAXIMUM / 4 ? limit * 4 : EC_SHELL_MAXIMUM;
	draft->line = *line;
	fill_header(&draft->text.head.header, EC_KIND_SHELL_TEXT, 0, bpf_ktime_get_boot_ns());
	draft->text.head.session = line->session;
	draft->text.head.command = line->command;
	draft->text.head.line = line->number;
	draft->text.head.form = line->form;
	draft->text.head.encoding = line->encoding;
	send_pieces(limit);
	line->kept = draft->line.kept;
	end_draft();
}

__attribute__((noinline)) int send_where_step(__u32 place)
{
	struct draft *draft = get_draft();

	if (!draft)
		return WALK_FAILED;
	asm volatile("" : "+r"(place));
	place &= PLACE_MAXIMUM - 1;
	return step_up(&draft->walk, draft->begin.bytes + place, DIRECTORY_MAXIMUM);
}

/* The rest of what a draft begins: the place, whose address is in its line, and the directory. */
__attribute__((noinline)) int send_where(__u32 unused)
{
	struct ec_settings *wanted = get_settings();
	struct draft *draft = get_draft();
	int result = WALK_FAILED;
	__u64 size = 0;
	__u32 i;
	long length;

	if (!draft || !wanted)
		return 0;
	draft->begin.head.login_uid = login_uid();
	read_terminal(draft->begin.head.terminal);
	if (draft->line.address) {
		length = bpf_probe_read_user_str(draft->begin.bytes, PLACE_MAXIMUM, (void *)draft->line.address);
		if (length > 1)
			size = length - 1;
	}
	draft->begin.head.place_length = size;
	if (begin_walk(&draft->walk)) {
		for (i = 0; i < DIRECTORY_STEPS; i++) {
			result = send_where_step(draft->begin.head.place_length);
			if (result != WALK_ON)
				break;
		}
	}
	size = draft->begin.head.place_length;
	if (result == WALK_DONE) {
		draft->begin.head.directory = 1;
		size += draft->walk.at;
	}
	asm volatile("" : "+r"(size));
	if (size > PLACE_MAXIMUM + DIRECTORY_MAXIMUM)
		size = PLACE_MAXIMUM + DIRECTORY_MAXIMUM;
	draft->begin.head.header.size = sizeof(struct ec_shell_begin) + size;
	send(wanted, &draft->begin, sizeof(struct ec_shell_begin) + size);
	return 0;
}

/* Who and where; "place" is the address of a pointer to the name of the file that is read, or 0; "limit" is what is to
 * be kept of a text that is made of what is sent. */
static __always_inline void send_begin(struct shell *shell, __u32 command, __u8 origin, __u64 place, __u32 limit)
{
	struct draft *draft = begin_draft();

	if (!draft)
		return;
	fill_header(&draft->begin.head.header, EC_KIND_SHELL_BEGIN, 0, bpf_ktime_get_boot_ns());
	draft->begin.head.session = shell->session;
	draft->begin.head.command = command;
	draft->begin.head.origin = origin;
	draft->begin.head.limit = limit;
	draft->line.address = place ? read_pointer(place) : 0;
	send_where(0);
	end_draft();
}

struct ending {
	__u64 session;
	__u64 started_ns;
	__u64 ended_ns; /* 0: now */
	__u32 command;
	__u32 lines;
	__s32 status;
	__u8 how;
	__u8 has_status;
};

static __attribute__((noinline)) int send_end(struct ending *ending)
{
	struct ec_settings *wanted = get_settings();
	struct ec_shell_end *record;

	if (!wanted)
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		count_lost_bytes(ring_full_records, ring_full_bytes, sizeof(*record));
		return 0;
	}
	fill_header(&record->header, EC_KIND_SHELL_END, sizeof(*record),
		    ending->ended_ns ? ending->ended_ns : bpf_ktime_get_boot_ns());
	record->session = ending->session;
	record->started_ns = ending->started_ns;
	record->command = ending->command;
	record->lines = ending->lines;
	record->status = ending->status;
	record->ending = ending->how;
	record->has_status = ending->has_status;
	record->_padding = 0;
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 0;
}

/* What is told of the end of a fish's command that has returned already. */
static __always_inline void take_done(struct ending *ending, const struct step *step)
{
	ending->how = EC_ENDING_RETURNED;
	ending->ended_ns = step->last;
	ending->status = step->last_number;
	ending->has_status = step->typed;
}

/* --- the state of a shell --- */

static __always_inline struct shell *known_shell(__u32 pid)
{
	struct shell *shell = bpf_map_lookup_elem(&shells, &pid);

	return shell && shell->task == bpf_get_current_task() ? shell : NULL;
}

static __always_inline struct shell *get_shell(__u32 pid, __u32 row, __u64 base)
{
	struct shell *shell = known_shell(pid);

	if (!shell) {
		struct shell fresh = {
			.session = bpf_ktime_get_boot_ns(),
			.task = bpf_get_current_task(),
		};

		bpf_map_update_elem(&shells, &pid, &fresh, BPF_ANY);
		shell = bpf_map_lookup_elem(&shells, &pid);
		if (!shell)
			return NULL;
	}
	shell->row = row;
	shell->base = base;
	return shell;
}

static __always_inline struct ec_shell_row *row_of(const struct shell *shell)
{
	__u32 row = shell->row;

	return bpf_map_lookup_elem(&shell_rows, &row);
}

static __always_inline void begin(struct shell *shell)
{
	if (shell->begun)
		return;
	shell->begun = 1;
	shell->command = ++shell->last;
	send_begin(shell, shell->command, EC_ORIGIN_TYPED, 0, 0);
}

/* Takes a line of what is typed. */
static __always_inline void take_line(struct shell *shell, __u64 address, __u32 length, __u8 form, __u8 encoding)
{
	struct line line = {
		.address = address,
		.session = shell->session,
		.length = length,
		.form = form,
		.encoding = encoding,
	};

	begin(shell);
	if (form == EC_FORM_GIVEN)
		shell->lines++;
	line.command = shell->command;
	line.number = shell->lines ? shell->lines - 1 : 0;
	line.kept = shell->kept;
	send_line(&line);
	shell->kept = line.kept;
}

static __always_inline void forget(struct shell *shell)
{
	shell->begun = 0;
	shell->lines = 0;
	shell->kept = 0;
	shell->told = 0;
	shell->raw = 0;
	shell->started_ns = 0;
}

/* The command is over. */
static __always_inline void finish(struct shell *shell, const struct ec_shell_row *row)
{
	if (shell->begun) {
		struct ending ending = {
			.session = shell->session,
			.started_ns = shell->started_ns,
			.command = shell->command,
			.lines = shell->lines,
			.how = EC_ENDING_RETURNED,
			.has_status = 1,
		};

		if (shell->phase == PHASE_READING)
			ending.how = EC_ENDING_ABANDONED;
		else if (shell->phase == PHASE_REFUSED)
			ending.how = EC_ENDING_NOT_RUN;
		ending.status = read_number(shell, row->status, -1);
		if (ending.status < 0)
			ending.has_status = 0;
		send_end(&ending);
	}
	forget(shell);
}

/* --- how programs know their shell --- */

struct place {
	struct shell *shell;
	struct ec_shell_row *row;
};

/* The shell that entered a function, whose address in its file is "function" in its row; created if it is new. */
#define ENTERED(place, regs, number, function)                                                   \
	do {                                                                                     \
		struct ec_settings *wanted_ = get_settings();                                    \
		__u32 pid_ = bpf_get_current_pid_tgid() >> 32, row_ = (number);                  \
		(place).shell = NULL;                                                            \
		(place).row = bpf_map_lookup_elem(&shell_rows, &row_);                           \
		if (wanted_ && (place).row && (place).row->function && is_target(wanted_, pid_)) \
			(place).shell = get_shell(pid_, row_,                                    \
						  instruction(regs) - (place).row->function);    \
	} while (0)

/* Kernels without attach cookies (before 5.15, commit 7adfc6c9b315): one program for each row. */
#define SLOT(NAME, FUNCTION, N)                               \
	SEC("uprobe") int NAME##_##N(struct pt_regs *regs)    \
	{                                                     \
		return FUNCTION(regs, N);                     \
	}
#define BY_FILE(NAME, FUNCTION)                               \
	SEC("uprobe") int NAME(struct pt_regs *regs)          \
	{                                                     \
		return FUNCTION(regs, bpf_get_attach_cookie(regs)); \
	}                                                     \
	SLOT(NAME, FUNCTION, 0)                               \
	SLOT(NAME, FUNCTION, 1)                               \
	SLOT(NAME, FUNCTION, 2)                               \
	SLOT(NAME, FUNCTION, 3)                               \
	SLOT(NAME, FUNCTION, 4)                               \
	SLOT(NAME, FUNCTION, 5)                               \
	SLOT(NAME, FUNCTION, 6)                               \
	SLOT(NAME, FUNCTION, 7)

#endif
