/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Tells of a command of a database server's session: that it begins and whose it is, its texts, how it ended.
 *
 * Names are read from the session's object, along the walks of its server's row; a walk of no steps leads nowhere and
 * leaves its field empty. Every text is in records or in "losses", up to the limit, and says where it was cut.
 */
#ifndef EC_COMMAND_BPF_H
#define EC_COMMAND_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"
#include "emit.bpf.h"
#include "target.bpf.h"
#include "chain.bpf.h"

/* What a client sent with a command. */
struct sent {
	__u64 buffer;
	__u64 length;
	__u64 role;	/* enum ec_text_role */
};

/* A command that has begun. */
struct running {
	__u64 session;
	__u64 started_ns;
	__u64 frame; /* stack pointer at entry */
	__u64 affected;
	__u64 last_id;
	__u64 rows;
	__u64 connection;
	__u32 statement;
	__u32 error;
	__u32 results;
	__u32 tid; /* the thread that began */
	__u16 flags;
	__u8 command;
	__u8 row;
	__u32 _padding;
	struct sent sent; /* only where it begins */
};

/* The command that a thread is in. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct running);
} commands SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EC_SERVER_ROWS);
	__type(key, __u32);
	__type(value, struct ec_server_row);
} server_rows SEC(".maps");

/* --- what a session's object says --- */

static __always_inline __u64 number_at(__u64 session, const struct ec_walk *where, int *known)
{
	__u64 at = walk(session, &where->chain), number = 0;
	__u32 half = 0;

	*known = 0;
	if (!at)
		return 0;
	if (where->size == 4) {
		*known = !bpf_probe_read_user(&half, sizeof(half), (void *)at);
		return half;
	}
	*known = !bpf_probe_read_user(&number, sizeof(number), (void *)at);
	return number;
}

/* The pointer that the last walk of two steps went by: those to a user and to where he comes from begin alike. */
struct near {
	__u64 base;
	__u32 offset;
};

static __always_inline __u64 walk_near(__u64 session, const struct ec_chain *chain, struct near *near)
{
	if (chain->count != 2)
		return walk(session, chain);
	if (!near->base || near->offset != chain->first) {
		near->offset = chain->first;
		if (bpf_probe_read_user(&near->base, sizeof(near->base), (void *)(session + chain->first)))
			near->base = 0;
	}
	return near->base ? near->base + chain->second : 0;
}

/* A number in a record, which the verifier then knows nothing of: whatever was read or not, what follows is the same
 * to it, and is walked once instead of once for each way that leads there. */
#define KEPT(member) (*(volatile __typeof__(member) *)&(member))

/*
 * Reads a text of a session's object to a place in its record that has room for SIZE bytes, a power of two. "length" is
 * a number in the record: that of the text without a NUL, below SIZE.
 */
#define READ_NAME(record, to, SIZE, session, where, near, cut, unread, length)                     \
	do {                                                                                       \
		__u64 place_ = walk_near((session), &(where)->chain, (near)), words_[2] = {};      \
		long got_;                                                                         \
		if (!place_)                                                                       \
			break;                                                                     \
		if (bpf_probe_read_user(words_, (where)->size ? 16 : 8, (void *)place_)) {         \
			KEPT((record)->flags) |= (unread);                                         \
			break;                                                                     \
		}                                                                                  \
		if (!words_[0])                                                                    \
			break;                                                                     \
		if ((where)->size) {                                                               \
			__u64 length_ = words_[1];                                                 \
			if (length_ >= (SIZE)) {                                                   \
				length_ = (SIZE)-1;                                                \
				KEPT((record)->flags) |= (cut);                                    \
			}                                                                          \
			asm volatile("" : "+r"(length_));                                          \
			length_ &= (SIZE)-1;                                                       \
			if (bpf_probe_read_user((to), length_, (void *)words_[0]))                 \
				KEPT((record)->flags) |= (unread);                                 \
			else                                                                       \
				KEPT((record)->length) = length_;                                  \
			break;                                                                     \
		}                                                                                  \
		got_ = bpf_probe_read_user_str((to), (SIZE), (void *)words_[0]);                   \
		if (got_ < 0) {                                                                    \
			KEPT((record)->flags) |= (unread);                                         \
		} else {                                                                           \
			if (got_ == (SIZE))                                                        \
				KEPT((record)->flags) |= (cut);                                    \
			KEPT((record)->length) = got_ > 0 ? got_ - 1 : 0;                          \
		}                                                                                  \
	} while (0)

/* How much of a text the limit lets through. */
static __always_inline __u64 kept_of(const struct ec_settings *wanted, __u64 length)
{
	__u64 limit = wanted->payload_limit;

	/* all ones: no limit was asked for */
	if (limit == ~0ULL)
		limit = EC_STATEMENT_LIMIT;
	if (limit > EC_STATEMENT_PIECES * EC_PIECE_MAXIMUM)
		limit = EC_STATEMENT_PIECES * EC_PIECE_MAXIMUM;
	return length < limit ? length : limit;
}

enum telling { DOES_NOT_FIT, TOLD, TOLD_BUT_TEXT };

#define ANY_CUT (EC_COMMAND_USER_CUT | EC_COMMAND_HOST_CUT | EC_COMMAND_DATABASE_CUT)

/*
 * Sends the record of a beginning, with room for names of below NAME and below DATABASE bytes, which are powers of two,
 * and for a text of up to TEXT. A ring record must be reserved with a constant size, of which only what is there is
 * touched: "size" says how much that is. Where a name is cut, it does not fit if CUTS is 0.
 */
#define TELL_BEGIN(FUNCTION, NAME, DATABASE, TEXT, CUTS)                                                              \
	static __attribute__((noinline)) int FUNCTION(struct ec_settings *wanted, struct running *command)            \
	{                                                                                                             \
		__u32 row_number = command->row;                                                                      \
		struct ec_server_row *row = bpf_map_lookup_elem(&server_rows, &row_number);                           \
		struct sent *sent = &command->sent;                                                                   \
		__u64 at, size = kept_of(wanted, sent->length);                                                       \
		struct ec_command *record;                                                                            \
		struct near near = {};                                                                                \
		__u8 *names;                                                                                          \
                                                                                                                      \
		if (!row) {                                                                                           \
			count_loss(fault_records);                                                                    \
			return TOLD;                                                                                  \
		}                                                                                                     \
		record = bpf_ringbuf_reserve(&events, sizeof(*record) + 2 * (NAME) + (DATABASE) + (TEXT), 0);         \
		if (!record) {                                                                                        \
			count_lost_bytes(ring_full_records, ring_full_bytes, size);                                   \
			return TOLD;                                                                                  \
		}                                                                                                     \
		names = (__u8 *)(record + 1);                                                                         \
		KEPT(record->flags) = command->flags;                                                                 \
		KEPT(record->user_length) = KEPT(record->host_length) = KEPT(record->database_length) = 0;            \
		record->known = (row->user.chain.count ? 1 : 0) | (row->database.chain.count ? 4 : 0) |               \
				(row->host.chain.count || row->address.chain.count ? 2 : 0);                          \
		READ_NAME(record, names, NAME, command->session, &row->user, &near, EC_COMMAND_USER_CUT,              \
			  EC_COMMAND_USER_UNREAD, user_length);                                                       \
		at = KEPT(record->user_length);                                                                       \
		PIN(at, NAME);                                                                                        \
		READ_NAME(record, names + at, NAME, command->session, &row->host, &near, EC_COMMAND_HOST_CUT,         \
			  EC_COMMAND_HOST_UNREAD, host_length);                                                       \
		if (!KEPT(record->host_length))                                                                       \
			READ_NAME(record, names + at, NAME, command->session, &row->address, &near,                   \
				  EC_COMMAND_HOST_CUT, EC_COMMAND_HOST_UNREAD, host_length);                          \
		at = KEPT(record->user_length) + KEPT(record->host_length);                                           \
		PIN(at, 2 * (NAME));                                                                                  \
		READ_NAME(record, names + at, DATABASE, command->session, &row->database, &near,                      \
			  EC_COMMAND_DATABASE_CUT, EC_COMMAND_DATABASE_UNREAD, database_length);                      \
		if (!(CUTS) && (KEPT(record->flags) & ANY_CUT)) {                                                     \
			bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);                                                \
			return DOES_NOT_FIT;                                                                          \
		}                                                                                                     \
		at = KEPT(record->user_length) + KEPT(record->host_length) + KEPT(record->database_length);           \
		asm volatile("" : "+r"(at));                                                                          \
		if (at >= 2 * (NAME) + (DATABASE))                                                                    \
			at = 0;                                                                                       \
		KEPT(record->sent_length) = 0;                                                                        \
		asm volatile("" : "+r"(size));                                                                        \
		if (size <= (TEXT) && size >= sent->length &&                                                         \
		    !bpf_probe_read_user(names + at, size, (void *)sent->buffer))                                     \
			KEPT(record->sent_length) = size;                                                             \
		size = KEPT(record->sent_length);                                                                     \
		at += sizeof(*record) + size;                                                                         \
		fill_header(&record->header, EC_KIND_COMMAND, at, command->started_ns);                               \
		record->session = command->session;                                                                   \
		record->connection = command->connection;                                                             \
		record->text_length = sent->role == EC_TEXT_STATEMENT ? sent->length : 0;                             \
		record->statement = command->statement;                                                               \
		record->command = command->command;                                                                   \
		record->role = sent->role;                                                                            \
		__builtin_memset(record->_padding, 0, sizeof(record->_padding));                                      \
		bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record) + 2 * (NAME) + (DATABASE) + (TEXT))); \
		return size < sent->length ? TOLD_BUT_TEXT : TOLD;                                                    \
	}

/* The verifier must see the bound on the very register that is used behind it. */
#define PIN(number, LIMIT)                       \
	do {                                     \
		asm volatile("" : "+r"(number)); \
		(number) &= (LIMIT)-1;           \
	} while (0)

#define SHORT_TEXT 128

TELL_BEGIN(tell_short, 64, 64, SHORT_TEXT, 0)
TELL_BEGIN(tell_long, EC_SERVER_NAME, EC_SERVER_DATABASE, 1024, 1)

/* --- texts --- */

struct text {
	struct ec_command_text head; /* copied in front of every piece */
	__u64 buffer;
};

/* Sends one piece; a ring record must be reserved with a constant size (see lib/deliver.bpf.h). */
#define SEND_TEXT(CLASS, at, bytes, last)                                                               \
	do {                                                                                            \
		__u64 length_ = (bytes), size_;                                                         \
		void *from_;                                                                            \
		struct ec_command_text *record_ =                                                       \
			bpf_ringbuf_reserve(&events, sizeof(struct ec_command_text) + (CLASS), 0);      \
		if (!record_) {                                                                         \
			count_lost_bytes(ring_full_records, ring_full_bytes, length_);                  \
			break;                                                                          \
		}                                                                                       \
		*record_ = text->head;                                                                  \
		record_->header.flags |= (last);                                                        \
		record_->offset = (at);                                                                 \
		from_ = (void *)(text->buffer + (at));                                                  \
		size_ = length_;                                                                        \
		/* older verifiers forget what they know of a number that was on the stack meanwhile */ \
		asm volatile("" : "+r"(from_), "+r"(size_));                                            \
		if (size_ > (CLASS))                                                                    \
			size_ = (CLASS);                                                                \
		if (bpf_probe_read_user(record_ + 1, size_, from_)) {                                   \
			count_lost_bytes(fault_records, fault_bytes, length_);                          \
			record_->header.flags |= EC_FLAG_FAULT;                                         \
			length_ = 0;                                                                    \
		}                                                                                       \
		record_->header.size = sizeof(struct ec_command_text) + length_;                        \
		bpf_ringbuf_submit(record_, wakeup_flags(wanted, sizeof(struct ec_command_text) + (CLASS)));    \
	} while (0)

static __attribute__((noinline)) int send_rest(struct ec_settings *wanted, struct text *text, __u64 at, __u64 length)
{
	if (length <= 64)
		SEND_TEXT(64, at, length, EC_FLAG_LAST);
	else if (length <= 128)
		SEND_TEXT(128, at, length, EC_FLAG_LAST);
	else if (length <= 256)
		SEND_TEXT(256, at, length, EC_FLAG_LAST);
	else if (length <= 512)
		SEND_TEXT(512, at, length, EC_FLAG_LAST);
	else if (length <= 1024)
		SEND_TEXT(1024, at, length, EC_FLAG_LAST);
	else if (length <= 4096)
		SEND_TEXT(4096, at, length, EC_FLAG_LAST);
	else
		SEND_TEXT(EC_PIECE_MAXIMUM, at, length, EC_FLAG_LAST);
	return 0;
}

/* A text whose full pieces are being sent by a thread: a global function is handed numbers only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* threads that are inside long texts at the same moment */
	__type(key, __u64);
	__type(value, struct text);
} texts SEC(".maps");

/* All pieces but the last are full. Global, so that the verifier walks the loop once, whatever leads here. */
__attribute__((noinline)) int send_full_pieces(__u32 full)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct text *text = bpf_map_lookup_elem(&texts, &thread);
	struct ec_settings *wanted = get_settings();
	__u32 i;

	if (!text || !wanted)
		return 0;
	for (i = 0; i < EC_STATEMENT_PIECES - 1; i++) {
		if (i >= full)
			break;
		SEND_TEXT(EC_PIECE_MAXIMUM, (__u64)i * EC_PIECE_MAXIMUM, EC_PIECE_MAXIMUM, 0);
	}
	bpf_map_delete_elem(&texts, &thread);
	return 0;
}

static __always_inline void tell_text(struct ec_settings *wanted, const struct running *command, __u8 role,
				      __u64 buffer, __u64 length)
{
	__u64 kept = kept_of(wanted, length), full, thread = bpf_get_current_pid_tgid();
	struct text whole = {}, *text = &whole;

	fill_header(&whole.head.header, EC_KIND_COMMAND_TEXT, 0, bpf_ktime_get_boot_ns());
	whole.head.header.tid = command->tid;
	whole.head.session = command->session;
	whole.head.started_ns = command->started_ns;
	whole.head.length = length;
	whole.head.role = role;
	whole.buffer = buffer;
	if (kept < length) {
		whole.head.header.flags |= EC_FLAG_TRUNCATED;
		count_lost_bytes(truncated_calls, truncated_bytes, length - kept);
	}
	full = kept ? (kept - 1) / EC_PIECE_MAXIMUM : 0;
	if (full) {
		if (bpf_map_update_elem(&texts, &thread, &whole, BPF_ANY))
			count_lost_bytes(ring_full_records, ring_full_bytes, full * EC_PIECE_MAXIMUM);
		else
			send_full_pieces(full);
	}
	send_rest(wanted, text, full * EC_PIECE_MAXIMUM, kept - full * EC_PIECE_MAXIMUM);
}

/* --- the beginning of a command --- */

/* The server's number of its session. */
static __always_inline void learn_connection(struct running *command)
{
	__u32 row_number = command->row;
	struct ec_server_row *row = bpf_map_lookup_elem(&server_rows, &row_number);
	int known = 0;

	if (row)
		command->connection = number_at(command->session, &row->connection, &known);
	if (known)
		command->flags |= EC_COMMAND_HAS_CONNECTION;
}

/* Says that a command begins, whose it is, and what was sent with it. */
static __always_inline void tell_begin(struct ec_settings *wanted, struct running *command)
{
	int told = DOES_NOT_FIT;

	if (command->sent.length <= SHORT_TEXT)
		told = tell_short(wanted, command);
	if (told == DOES_NOT_FIT)
		told = tell_long(wanted, command);
	if (told == TOLD_BUT_TEXT)
		tell_text(wanted, command, command->sent.role, command->sent.buffer, command->sent.length);
}

/* The same of the command that this thread is in. A global function: the verifier walks it once, whatever leads here. */
__attribute__((noinline)) int tell_entered(__u32 unused)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct running *command = bpf_map_lookup_elem(&commands, &thread);
	struct ec_settings *wanted = get_settings();

	if (command && wanted)
		tell_begin(wanted, command);
	return 0;
}

/* --- the end of a command --- */

static __always_inline void tell_end(struct ec_settings *wanted, const struct running *command)
{
	struct ec_command_end *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);

	if (!record) {
		count_loss(ring_full_records);
		return;
	}
	fill_header(&record->header, EC_KIND_COMMAND_END, sizeof(*record), bpf_ktime_get_boot_ns());
	record->header.tid = command->tid;
	record->session = command->session;
	record->started_ns = command->started_ns;
	record->connection = command->connection;
	record->affected = command->affected;
	record->last_id = command->last_id;
	record->rows = command->rows;
	record->statement = command->statement;
	record->error = command->error;
	record->results = command->results;
	record->flags = command->flags;
	record->command = command->command;
	record->_padding = 0;
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
}

/* A log-in that was refused is over when the client has been told why, or when its thread turns to something else. */
static __always_inline void end_refused(struct ec_settings *wanted)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct running *found = bpf_map_lookup_elem(&commands, &thread);

	if (!found || !(found->flags & EC_COMMAND_REFUSED))
		return;
	tell_end(wanted, found);
	bpf_map_delete_elem(&commands, &thread);
}

#endif
