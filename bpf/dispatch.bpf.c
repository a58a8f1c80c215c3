// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Commands that clients send to servers of the MySQL family, and how they end.
 *
 *   bool dispatch_command(enum_server_command, THD *, char *packet, uint length, ...)   MySQL to 5.6, MariaDB
 *   bool dispatch_command(THD *, const COM_DATA *, enum_server_command)                 MySQL since 5.7
 *       carries out one command of a session, from the packet that was read to the answer
 *   Protocol::send_ok, send_eof, send_error and their like
 *       what the client is told; their arguments have affected rows and the number of an error
 *   acl_authenticate(THD *, ...), end_connection(THD *)
 *       a session begins and ends
 *
 * Where user, host, database and so on stand in a session's object (THD) is a row in "server_rows", read from the code
 * of the server's own accessors; the attach cookie is the row. What is not known there is left empty.
 *
 * Invariants
 * 1. A command belongs to the session that the server hands over, never to a process or a thread: one thread serves
 *    many sessions where there is a pool, and one session wanders over many threads.
 * 2. While a command runs, its thread runs no other: answers are those of the command that the thread is in.
 * 3. Text is taken at entry, because the answer is written into the buffer that the packet was read into.
 * 4. Every byte of a text is in a record or in "losses"; one above the limit is cut there, and says so.
 * 5. The end of a server is told: what it was at when it crashed has no other end.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/process.bpf.h"
#include "lib/command.bpf.h"

/* enum enum_server_command, include/my_command.h: the numbers are those of the protocol. */
enum server_command {
	COM_SLEEP = 0,
	COM_QUIT = 1,
	COM_INIT_DB = 2,
	COM_QUERY = 3,
	COM_FIELD_LIST = 4,
	COM_STATISTICS = 9,
	COM_PING = 14,
	COM_CHANGE_USER = 17,
	COM_STMT_PREPARE = 22,
	COM_STMT_EXECUTE = 23,
	COM_STMT_SEND_LONG_DATA = 24,
	COM_STMT_CLOSE = 25,
	COM_STMT_RESET = 26,
	COM_SET_OPTION = 27,
	COM_STMT_FETCH = 28,
	COM_STMT_BULK_EXECUTE = 250, /* MariaDB, include/mysql_com.h */
};

#define SMALL_NUMBER 256 /* a command fits into a byte; no object lies so low */
#define WOULD_BLOCK 2	 /* DISPATCH_COMMAND_WOULDBLOCK: MariaDB since 10.6 comes back to the command later */

struct session_key {
	__u64 session;
	__u32 pid;
	__u32 _padding;
};

/* Commands that were left without an answer because the server waits for its disk, to be taken up by any thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct session_key);
	__type(value, struct running);
} suspended SEC(".maps");

/* --- a command --- */

/* What tells nothing of use to an auditor and comes often: connection pools send it before every statement. */
static __always_inline int is_housekeeping(__u8 command)
{
	return command == COM_SLEEP || command == COM_STATISTICS || command == COM_PING ||
	       command == COM_STMT_CLOSE || command == COM_STMT_RESET || command == COM_SET_OPTION;
}

/* struct COM_QUERY_DATA, COM_STMT_PREPARE_DATA, COM_INIT_DB_DATA, COM_FIELD_LIST_DATA, COM_STMT_EXECUTE_DATA,
 * COM_STMT_FETCH_DATA of MySQL's plugin interface, include/mysql/com_data.h (5.7 to 9.x): all begin with these. */
struct com_data {
	__u64 first;  /* text, or the id of a statement */
	__u64 second; /* length: 32 bits wide except for COM_INIT_DB */
};

static __always_inline int is_text_command(__u8 command)
{
	return command == COM_QUERY || command == COM_STMT_PREPARE || command == COM_INIT_DB ||
	       command == COM_FIELD_LIST;
}

static __always_inline int names_statement(__u8 command)
{
	return command == COM_STMT_EXECUTE || command == COM_STMT_FETCH || command == COM_STMT_BULK_EXECUTE ||
	       command == COM_STMT_SEND_LONG_DATA;
}

static __always_inline int enter(struct pt_regs *regs, __u32 row_number)
{
	__u64 thread = bpf_get_current_pid_tgid(), first = argument(regs, 0), second = argument(regs, 1);
	__u64 third = argument(regs, 2), text = 0, length = 0;
	struct ec_settings *wanted = get_settings();
	struct running command = { .tid = thread };
	struct session_key key = { .pid = thread >> 32 };
	struct ec_server_row *row;
	struct running *left;
	__u8 role = EC_TEXT_STATEMENT;
	__u64 number;
	int parsed;

	if (!wanted || !is_target(wanted, thread >> 32))
		return 0;
	end_refused(wanted);
	row = bpf_map_lookup_elem(&server_rows, &row_number);
	if (!row)
		return 0;
	parsed = row->dispatch == EC_DISPATCH_PARSED ||
		 (row->dispatch == EC_DISPATCH_ANY && first >= SMALL_NUMBER && (__u32)third < SMALL_NUMBER);
	number = (__u32)(parsed ? third : first);
	if (number >= SMALL_NUMBER)
		return 0;
	command.row = row_number;
	command.session = key.session = parsed ? first : second;
	command.frame = frame_at_entry(regs);
	left = bpf_map_lookup_elem(&suspended, &key);
	if (left) {
		/* a session has one command at a time, so it is the same, unless its end was missed */
		int same = left->command == (__u8)number;

		left->frame = command.frame;
		if (same && bpf_map_update_elem(&commands, &thread, left, BPF_ANY))
			count_loss(table_full_records);
		bpf_map_delete_elem(&suspended, &key);
		if (same)
			return 0;
	}
	command.command = number;
	if (is_housekeeping(command.command))
		return 0;
	command.started_ns = bpf_ktime_get_boot_ns();
	note_process(key.pid, command.started_ns);
	if (parsed) {
		struct com_data given = {};

		if (command.command != COM_QUIT &&
		    bpf_probe_read_user(&given, sizeof(given), (void *)second))
			count_loss(fault_records);
		if (is_text_command(command.command)) {
			text = given.first;
			length = command.command == COM_INIT_DB ? given.second : (__u32)given.second;
		} else if (names_statement(command.command)) {
			command.statement = given.first;
			command.flags |= EC_COMMAND_HAS_STATEMENT;
		}
	} else if (is_text_command(command.command)) {
		text = third;
		length = (__u32)argument(regs, 3);
	} else if (names_statement(command.command)) {
		/* 4 bytes of id, then what ec_text_role calls the packet */
		if (!bpf_probe_read_user(&command.statement, sizeof(command.statement), (void *)third))
			command.flags |= EC_COMMAND_HAS_STATEMENT;
		length = (__u32)argument(regs, 3);
		if (command.command == COM_STMT_EXECUTE && length > 4) {
			text = third + 4;
			length -= 4;
			role = EC_TEXT_PACKET;
		}
	}
	learn_connection(&command);
	command.sent.buffer = text;
	command.sent.length = text ? length : 0;
	command.sent.role = role;
	if (bpf_map_update_elem(&commands, &thread, &command, BPF_ANY)) {
		count_loss(table_full_records);
		return 0;
	}
	/* of a change of user, who it is then is known at its end */
	if (command.command != COM_CHANGE_USER)
		tell_entered(0);
	return 0;
}

SEC("uretprobe")
int dispatch_leave(struct pt_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct running *found = bpf_map_lookup_elem(&commands, &thread);
	struct ec_settings *wanted = get_settings();
	struct session_key key = { .pid = thread >> 32 };
	__u32 result = (__u8)returned(regs); /* a bool, or an enum of small numbers */

	if (!found || found->frame != frame_at_return(regs) || !wanted)
		return 0;
	if (result == WOULD_BLOCK && !(found->flags & EC_COMMAND_ANSWERED)) {
		key.session = found->session;
		if (bpf_map_update_elem(&suspended, &key, found, BPF_ANY))
			count_loss(table_full_records);
		bpf_map_delete_elem(&commands, &thread);
		return 0;
	}
	if (result == 1)
		found->flags |= EC_COMMAND_CLOSES;
	if (found->command == COM_CHANGE_USER)
		tell_entered(0);
	tell_end(wanted, found);
	bpf_map_delete_elem(&commands, &thread);
	return 0;
}

/* --- answers --- */

static __always_inline struct running *get_running(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&commands, &thread);
}

/* Of what was prepared, the session shows the text while it is executed: the client did not send it again. */
static __always_inline void answered(struct running *command)
{
	__u32 row_number = command->row;
	struct ec_server_row *row = bpf_map_lookup_elem(&server_rows, &row_number);
	struct ec_settings *wanted = get_settings();
	__u64 place, words[2] = {};
	int known = 0;

	if (!row || !wanted)
		return;
	if ((command->command == COM_STMT_EXECUTE || command->command == COM_STMT_BULK_EXECUTE) &&
	    !(command->flags & EC_COMMAND_ANSWERED)) {
		place = walk(command->session, &row->executed.chain);
		if (place && !bpf_probe_read_user(words, sizeof(words), (void *)place) && words[0] && words[1])
			tell_text(wanted, command, EC_TEXT_EXECUTED, words[0], words[1]);
	}
	command->rows = number_at(command->session, &row->rows, &known);
	if (known)
		command->flags |= EC_COMMAND_HAS_ROWS;
	command->flags |= EC_COMMAND_ANSWERED;
	command->results++;
}

static __always_inline int on_ok(__u64 affected, __u64 last_id)
{
	struct running *command = get_running();

	if (!command)
		return 0;
	command->affected += affected;
	command->last_id = last_id;
	command->flags |= EC_COMMAND_HAS_AFFECTED;
	answered(command);
	return 0;
}

/* The longest message is one of MYSQL_ERRMSG_SIZE, 512 bytes (include/mysql_com.h). */
#define MESSAGE_MAXIMUM 512

static __always_inline int on_error(__u32 number, __u64 message)
{
	struct running *command = get_running();
	struct ec_settings *wanted = get_settings();
	struct ec_command_text *record;
	long length;

	/* built on one another in some releases: the first of a command is the outermost */
	if (!command || !wanted || command->error)
		return 0;
	answered(command);
	command->error = number ? number : 1; /* an error without a number is one all the same */
	record = bpf_ringbuf_reserve(&events, sizeof(*record) + MESSAGE_MAXIMUM, 0);
	if (!record) {
		count_loss(ring_full_records);
		return 0;
	}
	fill_header(&record->header, EC_KIND_COMMAND_TEXT, 0, bpf_ktime_get_boot_ns());
	record->header.tid = command->tid;
	record->header.flags = EC_FLAG_LAST;
	record->session = command->session;
	record->started_ns = command->started_ns;
	record->offset = 0;
	record->role = EC_TEXT_MESSAGE;
	length = message ? bpf_probe_read_user_str(record + 1, MESSAGE_MAXIMUM, (void *)message) : 1;
	if (length < 1) {
		record->header.flags |= EC_FLAG_FAULT;
		length = 1;
	}
	record->length = length - 1;
	record->header.size = sizeof(*record) + length - 1;
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record) + MESSAGE_MAXIMUM));
	end_refused(wanted);
	return 0;
}

SEC("uprobe")
int answer_ok(struct pt_regs *regs)
{
	return on_ok(argument(regs, 3), argument(regs, 4));
}

SEC("uprobe")
int answer_ok_of(struct pt_regs *regs)
{
	return on_ok(argument(regs, 4), argument(regs, 5));
}

/* Clients that want no packets for the end of rows get an ok packet, sent by the function that ends rows. */
SEC("uprobe")
int answer_ok_marked(struct pt_regs *regs)
{
	if ((__u8)EIGHTH_ARGUMENT(regs))
		return 0;
	return on_ok(argument(regs, 4), argument(regs, 5));
}

SEC("uprobe")
int answer_error(struct pt_regs *regs)
{
	return on_error(argument(regs, 1), argument(regs, 2));
}

SEC("uprobe")
int answer_error_of(struct pt_regs *regs)
{
	return on_error(argument(regs, 2), argument(regs, 3));
}

SEC("uprobe")
int answer_end(struct pt_regs *regs)
{
	struct running *command = get_running();

	if (command)
		answered(command);
	return 0;
}

static __always_inline int on_prepared(__u32 statement)
{
	struct running *command = get_running();

	/* the first that is made while preparing is the one that was asked for */
	if (!command || command->command != COM_STMT_PREPARE || (command->flags & EC_COMMAND_HAS_STATEMENT))
		return 0;
	command->statement = statement;
	command->flags |= EC_COMMAND_HAS_STATEMENT;
	return 0;
}

SEC("uprobe")
int prepared_answer(struct pt_regs *regs)
{
	return on_prepared(argument(regs, 1));
}

SEC("uprobe")
int prepared_object(struct pt_regs *regs)
{
	return on_prepared(argument(regs, 4));
}

/* --- sessions --- */

static __always_inline int login(struct pt_regs *regs, __u32 row_number)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct ec_settings *wanted = get_settings();
	struct running command = { .tid = thread };

	if (!wanted || !is_target(wanted, thread >> 32))
		return 0;
	end_refused(wanted);
	/* COM_CHANGE_USER is a command already, which the answer will be counted for */
	if (bpf_map_lookup_elem(&commands, &thread))
		return 0;
	command.row = row_number;
	command.session = argument(regs, 0);
	command.frame = frame_at_entry(regs);
	command.command = EC_COMMAND_CONNECT;
	command.started_ns = bpf_ktime_get_boot_ns();
	note_process(thread >> 32, command.started_ns);
	if (bpf_map_update_elem(&commands, &thread, &command, BPF_ANY))
		count_loss(table_full_records);
	return 0;
}

SEC("uretprobe")
int login_leave(struct pt_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct running *found = bpf_map_lookup_elem(&commands, &thread);
	struct ec_settings *wanted = get_settings();
	struct running command;

	if (!found || found->frame != frame_at_return(regs) || !wanted)
		return 0;
	command = *found;
	bpf_map_delete_elem(&commands, &thread);
	learn_connection(&command);
	command.sent.length = 0; /* as it is: but the verifier has to know */
	tell_begin(wanted, &command);
	/* bool or int: not 0 is refused */
	if ((__u8)returned(regs)) {
		command.flags |= EC_COMMAND_CLOSES | EC_COMMAND_REFUSED;
		command.frame = 0;
		if (!command.error && !bpf_map_update_elem(&commands, &thread, &command, BPF_ANY))
			return 0;
	}
	tell_end(wanted, &command);
	return 0;
}

static __always_inline int session_end(struct pt_regs *regs, __u32 row_number)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct ec_settings *wanted = get_settings();
	struct session_key key = { .pid = thread >> 32 };
	struct running command = { .tid = thread };

	if (!wanted || !is_target(wanted, thread >> 32))
		return 0;
	command.row = row_number;
	end_refused(wanted);
	command.session = key.session = argument(regs, 0);
	command.command = EC_COMMAND_DISCONNECT;
	command.started_ns = bpf_ktime_get_boot_ns();
	bpf_map_delete_elem(&suspended, &key);
	learn_connection(&command);
	tell_begin(wanted, &command);
	tell_end(wanted, &command);
	return 0;
}

/* Kernels without attach cookies (before 5.15, commit 7adfc6c9b315): one program for each of a few rows. */
#define ROW_SLOT(NAME, BODY, N)                            \
	SEC("uprobe") int NAME##_##N(struct pt_regs *regs) \
	{                                                  \
		return BODY(regs, N);                      \
	}
#define BY_ROW(NAME, BODY)                                      \
	SEC("uprobe") int NAME(struct pt_regs *regs)            \
	{                                                       \
		return BODY(regs, bpf_get_attach_cookie(regs)); \
	}                                                       \
	ROW_SLOT(NAME, BODY, 0)                                 \
	ROW_SLOT(NAME, BODY, 1)                                 \
	ROW_SLOT(NAME, BODY, 2)                                 \
	ROW_SLOT(NAME, BODY, 3)                                 \
	ROW_SLOT(NAME, BODY, 4)                                 \
	ROW_SLOT(NAME, BODY, 5)                                 \
	ROW_SLOT(NAME, BODY, 6)                                 \
	ROW_SLOT(NAME, BODY, 7)
BY_ROW(dispatch_enter, enter)
BY_ROW(login_enter, login)
BY_ROW(session_ends, session_end)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
