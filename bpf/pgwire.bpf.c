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
#include "lib/messages.bpf.h"

#define PIECES 8	    /* of a run, of EC_PIECE_MAXIMUM bytes: more than a server's buffer has */
#define STEPS 4096	    /* a header or a content each: more than a buffer of 8 KiB can hold */

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
		bpf_ringbuf_submit(record_, wakeup_flags(wanted, sizeof(struct ec_served) + (CLASS)));   \
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
	backend->streams[direction].kept_offset += backend->lost;
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
	backend->lost = 0;
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
