// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What a PostgreSQL server and its client say to each other: the messages that matter for an audit.
 *
 *   ssize_t secure_read(Port *port, void *ptr, size_t len)    (PostgreSQL 7 to 18; src/backend/libpq/be-secure.c)
 *   ssize_t secure_write(Port *port, void *ptr, size_t len)
 *   ssize_t secure_raw_read(...), be_tls_read(...), be_gssapi_read(...)   called by secure_read (9.5)
 *
 * All that a back-end and its client exchange passes through the first two, in plaintext, whatever encrypts it. They
 * are called once per buffer, not once per message, and exported, because extensions need the server's symbols.
 * What passes is framed: a type byte, a length of four bytes that counts itself, content; a start-up packet has no type
 * (PostgreSQL 18 documentation, 54.7 "Message Formats"). So nothing of the server's own structures need be known.
 *
 * Every message is walked over here, and only some are handed to user space: statements, parameters and outcomes, but
 * not rows, not the content of COPY, and never a password.
 *
 * Invariants
 * 1. A back-end is one thread with one client, so its process is the key. Messages are walked over in full whether or
 *    not they can be delivered: the position in the stream is never lost by a full ring.
 * 2. The bytes that are kept are counted; those that could not be delivered show as a gap in the count.
 * 3. Who is joined late is listened to from a place where a message must begin: after a wait for the client (a server
 *    waits when all is answered), or after ReadyForQuery. What does not look like messages there is not taken for any.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/process.bpf.h"
#include "lib/socket.bpf.h"

#define RUNS 4		    /* a power of two: runs of kept bytes in one buffer; what lies between further ones is kept, too */
#define RUN_DISTANCE 128    /* runs that are closer become one: a record costs more than that */
#define HEADER 5	    /* type and length */
#define LENGTH_MAXIMUM 0x40000000 /* PQ_LARGE_MESSAGE_LIMIT, MaxAllocSize - 1 (1 GiB) */
#define STARTUP_MAXIMUM 10000	  /* MAX_STARTUP_PACKET_LENGTH */
#define AROUND_TEXT 1024    /* what a message has beside its text: names, numbers of types */
#define PIECES 8	    /* of a run, of EC_PIECE_MAXIMUM bytes: more than a server's buffer has */
#define STEPS 4096	    /* a header or a content each: more than a buffer of 8 KiB can hold */
#define WINDOW 128	    /* a power of two: bytes that are read at once for the headers in them */
#define AT_ONCE 8	    /* whole messages in one step */

enum disposal { LEAVE_OUT, KEEP, NEVER_KEEP };

struct open_call {
	__u64 frame; /* 0: none */
	__u64 buffer;
	__u64 entered_ns;
};

struct message_stream {
	__u64 kept_offset; /* bytes kept so far */
	__u32 left;	   /* what the message at hand still has */
	__u32 kept;	   /* what was kept of it */
	__u8 header[8];
	__u8 have; /* bytes of the header so far */
	__u8 disposal;
	__u8 synced;  /* the next byte is where we think it is */
	__u8 cut;     /* the message at hand was cut by the limit */
	__u32 _padding;
};

struct run {
	__u32 start;
	__u32 end;
	__u16 boundary; /* a message begins with it */
	__u16 cut;	/* the message it ends in goes on, and no more of it is kept */
};

struct backend {
	__u64 generation;
	__u64 buffer; /* the one that is walked over */
	__u64 time_ns;
	struct open_call open[2];
	struct message_stream streams[2];
	struct ec_tuple_value tuple;
	__u32 at;
	__u32 length;
	__u32 runs;
	__u8 barrier;	  /* what lies behind the last run must not become part of it */
	__u8 asked_plain; /* the client asked for encryption: one byte answers, which is no message */
	__u8 late;
	__u8 entered; /* is known not to be a latecomer any more */
	struct run run[RUNS];
	__u8 window[WINDOW + HEADER + 3]; /* bytes of the buffer; what is read there may go past its end, and is not used then */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* A new back-end is built here: it is larger than a stack should hold. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct backend);
} blank_backends SEC(".maps");

/* Back-ends that were there before the probes and may sit in a secure_read whose return we cannot see. User space
 * fills it; who is seen to enter secure_read is taken out, and needs no inner probes any more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, __u8);
} latecomers SEC(".maps");

static __always_inline struct backend *current_backend(void)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&backends, &pid);
}

static __always_inline struct backend *get_backend(__u32 pid, __u64 now)
{
	struct backend *known = bpf_map_lookup_elem(&backends, &pid);
	__u64 *born = bpf_map_lookup_elem(&processes, &pid);
	struct backend *blank;
	__u32 zero = 0;

	if (!born)
		bpf_map_update_elem(&processes, &pid, &now, BPF_NOEXIST);
	else if (known && known->generation >= *born)
		return known;
	blank = bpf_map_lookup_elem(&blank_backends, &zero);
	if (!blank)
		return NULL;
	bpf_map_update_elem(&backends, &pid, blank, BPF_ANY);
	known = bpf_map_lookup_elem(&backends, &pid);
	if (known)
		known->generation = now;
	return known;
}

/* --- walking over messages --- */

/* A set of types: letters, and digits beside them. */
#define LETTER(type) (1ULL << ((type) - 'A'))
#define DIGIT(type) (1ULL << ((type) - '0'))

static __always_inline int is_in(__u8 type, __u64 letters, __u64 digits)
{
	__u32 letter = (__u32)type - 'A', digit = (__u32)type - '0';

	if (letter < 64)
		return letters >> letter & 1;
	return digit < 10 && digits >> digit & 1;
}

/* Table 54.7: what a client may send (without start-up packets) and what a server may. */
static __always_inline int is_type(__u32 direction, __u8 type)
{
	if (direction == EC_READ)
		return is_in(type,
			     LETTER('B') | LETTER('C') | LETTER('D') | LETTER('E') | LETTER('F') | LETTER('H') |
				     LETTER('P') | LETTER('Q') | LETTER('S') | LETTER('X') | LETTER('c') | LETTER('d') |
				     LETTER('f') | LETTER('p'),
			     0);
	return is_in(type,
		     LETTER('A') | LETTER('C') | LETTER('D') | LETTER('E') | LETTER('G') | LETTER('H') | LETTER('I') |
			     LETTER('K') | LETTER('N') | LETTER('R') | LETTER('S') | LETTER('T') | LETTER('V') |
			     LETTER('W') | LETTER('Z') | LETTER('c') | LETTER('d') | LETTER('n') | LETTER('s') |
			     LETTER('t') | LETTER('v'),
		     DIGIT('1') | DIGIT('2') | DIGIT('3'));
}

static __always_inline __u8 disposal_of(__u32 direction, __u8 type)
{
	if (direction == EC_READ)
		return type == 'p' ? NEVER_KEEP : type == 'd' ? LEAVE_OUT : KEEP;
	/* not rows, their description, COPY, notices, notifications, the cancel key */
	return is_in(type,
		     LETTER('C') | LETTER('E') | LETTER('I') | LETTER('S') | LETTER('V') | LETTER('Z') | LETTER('n') |
			     LETTER('s') | LETTER('t'),
		     DIGIT('1') | DIGIT('2') | DIGIT('3'))
		       ? KEEP
		       : LEAVE_OUT;
}

/* A run by number. Masked, and pinned after it: the verifier must see the bound on the register that is added. */
static __always_inline struct run *get_run(struct backend *backend, __u64 number)
{
	number &= RUNS - 1;
	asm volatile("" : "+r"(number));
	number &= RUNS - 1;
	return &backend->run[number];
}

/* Marks bytes of the buffer as to be kept. */
static __always_inline void keep_run(struct backend *backend, __u32 start, __u32 end, __u32 boundary)
{
	__u32 count = backend->runs;
	struct run *run;

	if (count && !backend->barrier) {
		run = get_run(backend, count - 1);
		if (start - run->end <= RUN_DISTANCE || count >= RUNS) {
			run->end = end;
			return;
		}
	}
	if (count >= RUNS) { /* only behind passwords and what was cut */
		count_lost_bytes(ring_full_records, ring_full_bytes, end - start);
		return;
	}
	run = get_run(backend, count);
	run->start = start;
	run->end = end;
	run->boundary = boundary;
	run->cut = 0;
	backend->runs = count + 1;
	backend->barrier = 0;
}

static __always_inline void keep_some(struct backend *backend, struct message_stream *stream, __u32 start, __u32 length,
				      __u32 limit)
{
	__u32 room = limit > stream->kept ? limit - stream->kept : 0;
	__u32 kept = length < room ? length : room;

	if (stream->cut)
		return;
	keep_run(backend, start, start + kept, 0);
	stream->kept += kept;
	if (kept < length) {
		count_lost_bytes(truncated_calls, truncated_bytes, stream->left - kept);
		stream->cut = 1;
		get_run(backend, backend->runs - 1)->cut = 1;
		backend->barrier = 1;
	}
}

/* The header of a message is complete: what is it, how long is it? Nothing it can be: we are out of step. */
static __always_inline int begin_message(struct backend *backend, struct message_stream *stream, __u32 direction)
{
	__u8 type = stream->header[0];
	__u32 length;

	stream->have = 0;
	stream->cut = 0;
	if (direction == EC_READ && !type) {
		length = (__u32)stream->header[1] << 16 | (__u32)stream->header[2] << 8 | stream->header[3];
		if (length < 8 || length > STARTUP_MAXIMUM)
			return -1;
		/* SSLRequest and GSSENCRequest have eight bytes */
		backend->asked_plain = length == 8;
		backend->streams[EC_WRITE].left = 0;
		backend->streams[EC_WRITE].have = 0;
		backend->streams[EC_WRITE].synced = 1;
		stream->kept = 4;
	} else {
		if (!is_type(direction, type))
			return -1;
		length = (__u32)stream->header[1] << 24 | (__u32)stream->header[2] << 16 |
			 (__u32)stream->header[3] << 8 | stream->header[4];
		if (length < 4 || length > LENGTH_MAXIMUM)
			return -1;
		stream->kept = HEADER;
	}
	stream->left = length - 4;
	return 0;
}

static __always_inline int read_header(struct backend *backend, struct message_stream *stream, __u32 direction)
{
	__u32 have = stream->have, start = backend->at, taken;
	__u32 boundary = !have;
	__u8 type;

	if (!have && backend->length - start >= HEADER) {
		if (bpf_probe_read_user(stream->header, HEADER, (void *)(backend->buffer + start)))
			return -1;
		taken = direction == EC_READ && !stream->header[0] ? 4 : HEADER;
		have = taken;
	} else {
		__u64 place = have & (sizeof(stream->header) - 1);

		asm volatile("" : "+r"(place));
		place &= sizeof(stream->header) - 1;
		if (bpf_probe_read_user(&stream->header[place], 1, (void *)(backend->buffer + start)))
			return -1;
		taken = 1;
		have++;
	}
	type = stream->header[0];
	if (boundary)
		stream->disposal = direction == EC_READ && !type ? KEEP : disposal_of(direction, type);
	backend->at = start + taken;
	if (stream->disposal == KEEP)
		keep_run(backend, start, start + taken, boundary);
	else if (stream->disposal == NEVER_KEEP)
		backend->barrier = 1;
	stream->have = have;
	if (have >= (direction == EC_READ && !type ? 4 : HEADER))
		return begin_message(backend, stream, direction);
	return 0;
}

static __always_inline int walk_one(struct backend *backend, struct message_stream *stream, __u32 direction, __u32 limit)
{
	__u32 rest = backend->length - backend->at;
	__u32 taken = stream->left;

	if (!taken)
		return read_header(backend, stream, direction);
	if (taken > rest)
		taken = rest;
	if (stream->disposal == KEEP)
		keep_some(backend, stream, backend->at, taken, limit);
	backend->at += taken;
	stream->left -= taken;
	return 0;
}

/* Steps over a message that is as most are: whole, in the buffer and its header in the window. 0: it is none. */
static __always_inline int walk_whole(struct backend *backend, __u32 direction, __u32 from, __u32 limit)
{
	__u32 at = backend->at, rest = backend->length - at, length;
	__u64 place = at - from;
	const __u8 *header;
	__u8 disposal;

	if (place > WINDOW - HEADER || rest < HEADER)
		return 0;
	asm volatile("" : "+r"(place));
	place &= WINDOW - 1;
	header = &backend->window[place];
	length = (__u32)header[1] << 24 | (__u32)header[2] << 16 | (__u32)header[3] << 8 | header[4];
	disposal = disposal_of(direction, header[0]);
	if (length < 4 || length >= rest || length >= limit || disposal == NEVER_KEEP || !is_type(direction, header[0]))
		return 0;
	if (disposal == KEEP)
		keep_run(backend, at, at + 1 + length, 1);
	backend->at = at + 1 + length;
	return 1;
}

/* As many of them as there are at once. Returns how many steps were taken. */
static __always_inline int walk_quickly(struct backend *backend, struct message_stream *stream, __u32 direction,
					__u32 limit)
{
	__u32 from = backend->at;
	__u64 size = backend->length - from;
	int i, steps = 0;

	if (stream->left || stream->have)
		return 0;
	if (size > WINDOW)
		size = WINDOW;
	asm volatile("" : "+r"(size));
	if (size > WINDOW || bpf_probe_read_user(backend->window, size, (void *)(backend->buffer + from)))
		return 0;
#pragma unroll
	for (i = 0; i < AT_ONCE; i++) {
		if (!walk_whole(backend, direction, from, limit))
			break;
		steps++;
	}
	return steps;
}

/* One step. A global function: the verifier looks at it once, however often it is called (5.6, commit 51c39bb1d5d1).
 * Without a loop of its own, which older verifiers walk through in every combination. Returns 0 at the end. */
__attribute__((noinline)) int walk_on(__u32 direction)
{
	struct backend *backend = current_backend();
	struct ec_settings *wanted = get_settings();
	struct message_stream *stream;
	__u32 limit;

	if (!backend || !wanted || backend->at >= backend->length)
		return 0;
	direction = direction ? EC_WRITE : EC_READ;
	stream = &backend->streams[direction];
	limit = wanted->text_limit + AROUND_TEXT;
	if (walk_quickly(backend, stream, direction, limit))
		return backend->at < backend->length;
	if (walk_one(backend, stream, direction, limit)) {
		stream->synced = 0;
		stream->left = 0;
		stream->have = 0;
		return 0;
	}
	return 1;
}

/* --- delivering what is kept --- */

/* See deliver.bpf.h for the classes of sizes. */
#define SEND(CLASS)                                                                              \
	do {                                                                                     \
		struct ec_served *record_ =                                                      \
			bpf_ringbuf_reserve(&events, sizeof(struct ec_served) + (CLASS), 0);     \
		__u64 length_ = length;                                                          \
		if (!record_) {                                                                  \
			count_lost_bytes(ring_full_records, ring_full_bytes, length_);           \
			break;                                                                   \
		}                                                                                \
		fill_header(&record_->header, EC_KIND_SERVED, 0, backend->time_ns);              \
		record_->header.flags = flags;                                                   \
		record_->generation = backend->generation;                                       \
		record_->kept_offset = kept_offset;                                              \
		record_->tuple = backend->tuple;                                                 \
		record_->direction = direction;                                                  \
		record_->late = backend->late;                                                   \
		record_->_padding[0] = record_->_padding[1] = 0;                                 \
		/* the verifier must see the bound on the very register it passes on */          \
		asm volatile("" : "+r"(length_));                                                \
		if (length_ > (CLASS))                                                           \
			length_ = (CLASS);                                                       \
		if (length_ && bpf_probe_read_user(record_ + 1, length_, (void *)from)) {        \
			count_lost_bytes(fault_records, fault_bytes, length_);                   \
			record_->header.flags |= EC_FLAG_FAULT;                                  \
			length_ = 0;                                                             \
		}                                                                                \
		record_->header.size = sizeof(struct ec_served) + length_;                       \
		bpf_ringbuf_submit(record_, wakeup_flags(wanted, record_->header.size));         \
	} while (0)

static __always_inline void send_piece(struct backend *backend, struct ec_settings *wanted, __u32 direction, __u64 from,
				       __u32 length, __u64 kept_offset, __u16 flags)
{
	if (length <= 64)
		SEND(64);
	else if (length <= 128)
		SEND(128);
	else if (length <= 256)
		SEND(256);
	else if (length <= 512)
		SEND(512);
	else if (length <= 1024)
		SEND(1024);
	else if (length <= 2048)
		SEND(2048);
	else if (length <= 4096)
		SEND(4096);
	else if (length <= 8192)
		SEND(8192);
	else
		SEND(EC_PIECE_MAXIMUM);
}

/* Sends the next piece of a run; global, and one piece only, for the same reasons. Numbered run * 2 + direction. Returns
 * 0 when there is no more of it. */
__attribute__((noinline)) int send_some(__u32 number)
{
	struct backend *backend = current_backend();
	struct ec_settings *wanted = get_settings();
	__u32 index = number >> 1, direction = number & 1 ? EC_WRITE : EC_READ;
	struct message_stream *stream;
	__u32 start, end, length;
	struct run *run;
	__u16 flags;

	if (!backend || !wanted || index >= RUNS)
		return 0;
	stream = &backend->streams[direction];
	run = get_run(backend, index);
	start = run->start;
	end = run->end;
	if (start > end)
		return 0;
	flags = run->boundary ? EC_FLAG_BOUNDARY : 0;
	length = end - start;
	if (length > EC_PIECE_MAXIMUM)
		length = EC_PIECE_MAXIMUM;
	else if (run->cut)
		flags |= EC_FLAG_TRUNCATED;
	send_piece(backend, wanted, direction, backend->buffer + start, length, stream->kept_offset, flags);
	stream->kept_offset += length;
	run->start = start + length;
	run->boundary = 0;
	return start + length < end;
}

/* What no piece was left for, after PIECES of them. */
static __always_inline void lose_rest(struct backend *backend, __u32 direction, __u32 index)
{
	struct run *run = get_run(backend, index);
	__u32 rest = run->end - run->start;

	count_lost_bytes(ring_full_records, ring_full_bytes, rest);
	backend->streams[direction].kept_offset += rest;
}

/* The descriptor is the first member of struct Port in every release (src/include/libpq/libpq-be.h); that it is one of
 * a socket is proven through the file table. */
static __always_inline void learn_client(struct backend *backend, __u64 port)
{
	__s32 fd = -1;

	if (backend->tuple.source != EC_TUPLE_NONE || bpf_probe_read_user(&fd, sizeof(fd), (void *)port))
		return;
	read_descriptor(&backend->tuple, fd);
}

static __always_inline void deliver_buffer(struct backend *backend, __u32 direction)
{
	__u32 i, runs, more = 0;

	for (i = 0; i < STEPS; i++) {
		if (!walk_on(direction))
			break;
	}
	if (backend->at < backend->length)
		backend->streams[direction].synced = 0;
	runs = backend->runs;
	for (i = 0; i < RUNS * PIECES; i++) {
		if (i / PIECES >= runs)
			break;
		if (i % PIECES == 0)
			more = 1;
		if (more)
			more = send_some(i / PIECES * 2 + direction);
		if (more && i % PIECES == PIECES - 1)
			lose_rest(backend, direction, i / PIECES);
	}
}

/* --- calls --- */

static __always_inline int enter_call(struct pt_regs *regs, __u32 direction, int inner)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 now = bpf_ktime_get_boot_ns();
	struct backend *backend;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	backend = get_backend(pid, now);
	if (!backend)
		return 0;
	if (inner) {
		if (backend->open[direction].frame || backend->streams[direction].synced)
			return 0;
	} else if (direction == EC_READ && !backend->entered) {
		bpf_map_delete_elem(&latecomers, &pid);
		backend->entered = 1;
	}
	backend->open[direction].buffer = argument(regs, 1);
	backend->open[direction].entered_ns = now;
	backend->open[direction].frame = frame_at_entry(regs);
	learn_client(backend, argument(regs, 0));
	return 0;
}

/* Does this buffer of a back-end that we joined late end with ReadyForQuery? Then a message begins behind it. */
static __always_inline int ends_ready(struct backend *backend)
{
	__u8 end[6] = {};

	if (backend->length < sizeof(end) ||
	    bpf_probe_read_user(end, sizeof(end), (void *)(backend->buffer + backend->length - sizeof(end))))
		return 0;
	return end[0] == 'Z' && !end[1] && !end[2] && !end[3] && end[4] == 5 &&
	       (end[5] == 'I' || end[5] == 'T' || end[5] == 'E');
}

static __always_inline int looks_like_startup(struct backend *backend)
{
	__u8 start[6] = {};

	if (backend->length < 8 || bpf_probe_read_user(start, sizeof(start), (void *)backend->buffer))
		return 0;
	/* a length below 64 KiB, and the upper half of a version 3.x (3) or of a request (1234) */
	return !start[0] && !start[1] && ((!start[4] && start[5] == 3) || (start[4] == 0x04 && start[5] == 0xd2));
}

static __always_inline int leave_call(struct pt_regs *regs, __u32 direction, int inner)
{
	struct backend *backend = current_backend();
	struct message_stream *stream;
	__s64 result = returned(regs);

	if (!backend || !backend->open[direction].frame || backend->open[direction].frame != frame_at_return(regs))
		return 0;
	backend->open[direction].frame = 0;
	if (result <= 0 || result > LENGTH_MAXIMUM)
		return 0;
	stream = &backend->streams[direction];
	backend->buffer = backend->open[direction].buffer;
	backend->length = result;
	backend->at = 0;
	backend->runs = 0;
	backend->barrier = 0;
	backend->time_ns = direction == EC_READ ? bpf_ktime_get_boot_ns() : backend->open[direction].entered_ns;
	if (direction == EC_WRITE && backend->asked_plain) {
		backend->asked_plain = 0;
		if (result == 1)
			return 0;
	}
	if (!stream->synced) {
		if (direction == EC_WRITE) {
			backend->late = 1;
			if (ends_ready(backend)) {
				stream->synced = 1;
				backend->streams[EC_READ].synced = 1;
			}
			return 0;
		}
		if (looks_like_startup(backend)) {
			stream->left = stream->have = 0;
			backend->late = 0;
		} else if (inner) {
			backend->late = 1;
			backend->streams[EC_WRITE].synced = 1;
		} else {
			backend->late = 1;
			return 0;
		}
		stream->synced = 1;
	}
	deliver_buffer(backend, direction);
	return 0;
}

SEC("uprobe")
int served_read_enter(struct pt_regs *regs)
{
	return enter_call(regs, EC_READ, 0);
}

SEC("uretprobe")
int served_read_leave(struct pt_regs *regs)
{
	return leave_call(regs, EC_READ, 0);
}

SEC("uprobe")
int served_write_enter(struct pt_regs *regs)
{
	return enter_call(regs, EC_WRITE, 0);
}

SEC("uretprobe")
int served_write_leave(struct pt_regs *regs)
{
	return leave_call(regs, EC_WRITE, 0);
}

SEC("uprobe")
int served_inner_enter(struct pt_regs *regs)
{
	return enter_call(regs, EC_READ, 1);
}

SEC("uretprobe")
int served_inner_leave(struct pt_regs *regs)
{
	return leave_call(regs, EC_READ, 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
