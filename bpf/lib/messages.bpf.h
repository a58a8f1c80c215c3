/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Walks over the messages of PostgreSQL's protocol in a buffer of a back-end, and marks the bytes of it that are kept.
 *
 * A buffer begins and ends anywhere in a message; where in it we are is kept with the back-end, for both directions.
 */
#ifndef EC_MESSAGES_BPF_H
#define EC_MESSAGES_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../wire.h"
#include "emit.bpf.h"
#include "target.bpf.h"

#define RUNS 4		    /* a power of two: runs of kept bytes in one buffer; what lies between further ones is kept, too */
#define RUN_DISTANCE 128    /* runs that are closer become one: a record costs more than that */
#define HEADER 5	    /* type and length */
#define LENGTH_MAXIMUM 0x40000000 /* PQ_LARGE_MESSAGE_LIMIT, MaxAllocSize - 1 (1 GiB) */
#define STARTUP_MAXIMUM 10000	  /* MAX_STARTUP_PACKET_LENGTH */
#define AROUND_TEXT 1024    /* what a message has beside its text: names, numbers of types */
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
	__u32 lost;	  /* bytes behind the last run that no run was left for */
	struct run run[RUNS];
	__u8 window[WINDOW + HEADER + 3]; /* bytes of the buffer; what is read there may go past its end, and is not used then */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

static __always_inline struct backend *current_backend(void)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&backends, &pid);
}

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
		backend->lost += end - start;
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
		if (!backend->lost)
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

#endif
