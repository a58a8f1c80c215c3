// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The secrets of TLS connections, as key logs have them.
 *
 *   void ssl_log_secret(SSL *ssl, const char *label, const uint8_t *secret, size_t length)
 *       internal to OpenSSL since 1.1.1, to BoringSSL and alike to GnuTLS: called with every secret, whether or not
 *       anybody asked for a key log
 *   int tls1_generate_master_secret(SSL *s, unsigned char *out, ...)
 *       OpenSSL 1.0.2 and 1.1.0, which have no such function
 *   SSL_read, SSL_write and their like
 *       of connections that are older than these probes, and of resumed ones of 1.0.2 and 1.1.0: what the object keeps
 *
 * Where the fields stand in the objects of a file is its row in "secret_rows"; the attach cookie is the row.
 *
 * Invariants
 * 1. A secret goes out whole or not at all; one that could not be read is counted.
 * 2. A label is what the program handed over, or is known by its place in its page: the text need not be in memory,
 *    since nobody reads it without a key log, and a probe cannot wait for a page.
 * 3. Of what objects keep, nothing is taken before the handshake is over, and once for each client random: then the
 *    master key of this connection stands in its session, not that of the one it tries to resume.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/conversation.bpf.h"
#include "lib/secret.bpf.h"

#define TLS_MAJOR 0x0300
#define TLS_1_3 0x0304
#define MASTER_LENGTH 48

struct client_random {
	__u64 words[EC_RANDOM_LENGTH / 8];
};

/* The client random of the connection whose secrets were read last from a handle. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct conversation_key);
	__type(value, struct client_random);
} secrets_read SEC(".maps");

struct making_key {
	__u64 frame; /* stack pointer at entry */
	__u32 pid;
	__u32 _padding;
};

struct making {
	__u64 handle;
	__u64 output;
	__u32 row;
	__u32 _padding;
};

/* Calls of tls1_generate_master_secret that have not returned. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct making_key);
	__type(value, struct making);
} makings SEC(".maps");

static __always_inline int log_secret(struct pt_regs *regs, __u32 number)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct conversation_key who = { .handle = argument(regs, 0), .pid = pid };
	__u64 label = argument(regs, 1), secret = argument(regs, 2), length = argument(regs, 3);
	struct ec_secret_row *row;
	struct ec_secret *record;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	row = bpf_map_lookup_elem(&secret_rows, &number);
	if (!row)
		return 0;
	record = begin_secret(&who, row);
	if (!record)
		return 0;
	if (bpf_probe_read_user_str(record->label, sizeof(record->label), (void *)label) < 0)
		record->label[0] = 0;
	record->label_number = label_by_place(row, label);
	record->length = length;
	if (length > EC_SECRET_MAXIMUM)
		record->length = 0;
	length = record->length;
	/* the verifier must see the bound on the very register it passes on */
	asm volatile("" : "+r"(length));
	if (length > EC_SECRET_MAXIMUM)
		length = EC_SECRET_MAXIMUM;
	if (!length || bpf_probe_read_user(record->secret, length, (void *)secret)) {
		count_lost_bytes(fault_records, fault_bytes, length);
		record->header.flags |= EC_FLAG_FAULT;
	}
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 0;
}

/* A master secret at an address of the program, which becomes a line CLIENT_RANDOM; 1 if it was sent. */
static __always_inline int send_master(struct ec_settings *wanted, const struct conversation_key *who,
				       const struct ec_secret_row *row, __u64 place)
{
	struct ec_secret *record = begin_secret(who, row);
	__u64 any = 0;
	__u32 i;

	if (!record)
		return 0;
	record->label_number = EC_LABEL_CLIENT_RANDOM;
	record->length = MASTER_LENGTH;
	if (bpf_probe_read_user(record->secret, MASTER_LENGTH, (void *)place)) {
		count_lost_bytes(fault_records, fault_bytes, MASTER_LENGTH);
		record->header.flags |= EC_FLAG_FAULT;
		any = 1;
	}
	for (i = 0; i < MASTER_LENGTH / 8; i++)
		any |= ((__u64 *)record->secret)[i];
	if (!any) { /* not made yet */
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return 0;
	}
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 1;
}

static __always_inline int send_schedule(struct ec_settings *wanted, const struct conversation_key *who,
					 const struct ec_secret_row *row, const struct client_random *random)
{
	struct ec_schedule *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	__u64 now = bpf_ktime_get_boot_ns();

	if (!record) {
		count_lost_bytes(ring_full_records, ring_full_bytes, sizeof(*record));
		return 0;
	}
	fill_header(&record->header, EC_KIND_SCHEDULE, sizeof(*record), now);
	record->handle = who->handle;
	record->generation = generation_of(who, now);
	__builtin_memcpy(record->client_random, random, sizeof(record->client_random));
	if (read_field(record->secrets, sizeof(record->secrets), who->handle, &row->schedule) ||
	    read_field(record->exporter, sizeof(record->exporter), who->handle, &row->exporter)) {
		count_lost_bytes(fault_records, fault_bytes, sizeof(record->secrets));
		record->header.flags |= EC_FLAG_FAULT;
	}
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 1;
}

static __always_inline int same_random(const struct client_random *one, const struct client_random *other)
{
	__u64 difference = 0;
	__u32 i;

	for (i = 0; i < EC_RANDOM_LENGTH / 8; i++)
		difference |= one->words[i] ^ other->words[i];
	return !difference;
}

/* --- programs: which of them are loaded is decided by feature tests in user space --- */

SEC("uprobe")
int secret_log(struct pt_regs *regs)
{
	return log_secret(regs, bpf_get_attach_cookie(regs));
}

/* Kernels without attach cookies (before 5.15, commit 7adfc6c9b315): one program for each of the first files. */
#define SECRET_SLOT(N)                                         \
	SEC("uprobe") int secret_log_##N(struct pt_regs *regs) \
	{                                                      \
		return log_secret(regs, N);                    \
	}
SECRET_SLOT(0)
SECRET_SLOT(1)
SECRET_SLOT(2)
SECRET_SLOT(3)
SECRET_SLOT(4)
SECRET_SLOT(5)
SECRET_SLOT(6)
SECRET_SLOT(7)

SEC("uprobe")
int master_enter(struct pt_regs *regs)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct making_key key = { .frame = frame_at_entry(regs), .pid = pid };
	struct making making = {
		.handle = argument(regs, 0),
		.output = argument(regs, 1),
		.row = bpf_get_attach_cookie(regs),
	};

	if (!wanted || !is_target(wanted, pid))
		return 0;
	if (bpf_map_update_elem(&makings, &key, &making, BPF_ANY))
		count_loss(table_full_records);
	return 0;
}

SEC("uretprobe")
int master_leave(struct pt_regs *regs)
{
	struct making_key key = { .frame = frame_at_return(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct making *found = bpf_map_lookup_elem(&makings, &key);
	struct ec_settings *wanted = get_settings();
	struct conversation_key who = { .pid = key.pid };
	struct ec_secret_row *row;
	struct making making;

	if (!found || !wanted)
		return 0;
	making = *found;
	bpf_map_delete_elem(&makings, &key);
	row = bpf_map_lookup_elem(&secret_rows, &making.row);
	if (!row || (__s32)returned(regs) <= 0)
		return 0;
	who.handle = making.handle;
	send_master(wanted, &who, row, making.output);
	return 0;
}

SEC("uprobe")
int secrets_kept(struct pt_regs *regs)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32, number = bpf_get_attach_cookie(regs), version;
	struct conversation_key who = { .handle = argument(regs, 0), .pid = pid };
	struct client_random random = {}, *before;
	struct ec_secret_row *row;
	int sent = 0;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	row = bpf_map_lookup_elem(&secret_rows, &number);
	if (!row || read_number(who.handle, &row->object_type, 0))
		return 0;
	if (read_field(&random, sizeof(random), who.handle, &row->client_random))
		return 0;
	before = bpf_map_lookup_elem(&secrets_read, &who);
	if (before && same_random(before, &random))
		return 0;
	if (read_number(who.handle, &row->in_init, 0) ||
	    read_number(who.handle, &row->handshake_state, ~0U) != row->finished_state)
		return 0;
	version = read_number(who.handle, &row->version, 0);
	if ((version & 0xff00) == TLS_MAJOR && version >= TLS_1_3) {
		if (row->schedule.count)
			sent = send_schedule(wanted, &who, row, &random);
	} else if (version) {
		__u64 place = walk(who.handle, &row->master_key);

		if (place)
			sent = send_master(wanted, &who, row, place);
	}
	if (sent)
		bpf_map_update_elem(&secrets_read, &who, &random, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
