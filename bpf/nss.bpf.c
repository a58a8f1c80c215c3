// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The secrets of NSS, which has them in another library than the connections.
 *
 *   void ssl3_RecordKeyLog(sslSocket *ss, const char *label, PK11SymKey *secret)
 *       internal to libssl3: called with every secret, whether or not it was built to log them (then it only returns)
 *   CK_RV sftk_forceAttribute(SFTKObject *object, CK_ATTRIBUTE_TYPE type, const void *value, unsigned int length)
 *       internal to libsoftokn3: gives an object its bytes
 *
 * A key has no bytes, only the handle of an object of softoken. So the bytes that objects get are kept, by object; and
 * of every thread the objects that it gave bytes to last. The key that is told is made by the same thread shortly
 * before, and its object is the one that says to have the handle of the key.
 *
 * Invariants
 * 1. A secret is sent only if the object's handle, read when the secret is told, equals the key's: where a library
 *    keeps either elsewhere, nothing equals and nothing is sent but a record that says so, which is counted.
 * 2. The bytes are the last that the object got from any thread of its process.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/conversation.bpf.h"
#include "lib/secret.bpf.h"

#define CKA_VALUE 0x11		/* PKCS #11 2.40, attribute types */
#define KEY_OBJECT 8		/* of PK11SymKey (lib/pk11wrap/secmodti.h): type, objectID */
#define OBJECT_HANDLE 24	/* of SFTKObject (lib/softoken/pkcs11i.h): next, prev, objclass, handle */
#define RECENT 16		/* objects of a thread that are remembered; TLS 1.2 makes four behind the master secret */

struct object_key {
	__u64 object;
	__u32 pid;
	__u32 _padding;
};

struct object_bytes {
	__u8 bytes[EC_SECRET_MAXIMUM];
	__u32 length;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct object_key);
	__type(value, struct object_bytes);
} nss_objects SEC(".maps");

struct recent_objects {
	__u64 objects[RECENT];
	__u32 next;
	__u32 _padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct recent_objects);
} nss_recent SEC(".maps");

static __always_inline void remember_object(__u64 object)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct recent_objects *recent = bpf_map_lookup_elem(&nss_recent, &thread);
	__u32 place;

	if (!recent) {
		struct recent_objects first = { .objects = { object }, .next = 1 };

		bpf_map_update_elem(&nss_recent, &thread, &first, BPF_ANY);
		return;
	}
	place = recent->next++;
	/* the verifier must see the bound on the very register that is added */
	asm volatile("" : "+r"(place));
	recent->objects[place & (RECENT - 1)] = object;
}

/* The bytes of the object that has this handle, if this thread gave them to it. */
static __always_inline struct object_bytes *find_bytes(__u64 wanted, __u32 pid)
{
	__u64 thread = bpf_get_current_pid_tgid(), handle;
	struct recent_objects *recent = bpf_map_lookup_elem(&nss_recent, &thread);
	__u32 i;

	if (!recent || !wanted)
		return NULL;
	for (i = 0; i < RECENT; i++) {
		struct object_key key = { .object = recent->objects[i], .pid = pid };

		if (!key.object)
			continue;
		handle = 0;
		if (bpf_probe_read_user(&handle, sizeof(handle), (void *)(key.object + OBJECT_HANDLE)))
			continue;
		if (handle == wanted)
			return bpf_map_lookup_elem(&nss_objects, &key);
	}
	return NULL;
}

static __always_inline int log_key(struct pt_regs *regs, __u32 number)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct conversation_key who = { .handle = argument(regs, 0), .pid = pid };
	__u64 label = argument(regs, 1), key = argument(regs, 2), handle = 0;
	struct object_bytes *found = NULL;
	struct ec_secret_row *row;
	struct ec_secret *record;

	if (!wanted || !key || !is_target(wanted, pid))
		return 0;
	row = bpf_map_lookup_elem(&secret_rows, &number);
	if (!row)
		return 0;
	if (!bpf_probe_read_user(&handle, sizeof(handle), (void *)(key + KEY_OBJECT)))
		found = find_bytes(handle, pid);
	record = begin_secret(&who, row);
	if (!record)
		return 0;
	if (bpf_probe_read_user_str(record->label, sizeof(record->label), (void *)label) < 0)
		record->label[0] = 0;
	record->label_number = label_by_place(row, label);
	if (found) {
		record->length = found->length;
		__builtin_memcpy(record->secret, found->bytes, sizeof(record->secret));
	} else {
		count_loss(fault_records);
		record->header.flags |= EC_FLAG_FAULT;
	}
	bpf_ringbuf_submit(record, wakeup_flags(wanted, sizeof(*record)));
	return 0;
}

/* --- programs: which of them are loaded is decided by feature tests in user space --- */

SEC("uprobe")
int nss_log(struct pt_regs *regs)
{
	return log_key(regs, bpf_get_attach_cookie(regs));
}

/* Kernels without attach cookies (before 5.15, commit 7adfc6c9b315): one program for each of the first files. */
#define NSS_SLOT(N)                                         \
	SEC("uprobe") int nss_log_##N(struct pt_regs *regs) \
	{                                                   \
		return log_key(regs, N);                    \
	}
NSS_SLOT(0)
NSS_SLOT(1)
NSS_SLOT(2)
NSS_SLOT(3)
NSS_SLOT(4)
NSS_SLOT(5)
NSS_SLOT(6)
NSS_SLOT(7)

SEC("uprobe")
int nss_value(struct pt_regs *regs)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct object_key key = { .object = argument(regs, 0), .pid = pid };
	__u64 bytes = argument(regs, 2), length = (__u32)argument(regs, 3);
	struct object_bytes given = {};

	if (argument(regs, 1) != CKA_VALUE || !wanted || !is_target(wanted, pid))
		return 0;
	/* what it had it has no more, whatever comes of this */
	bpf_map_delete_elem(&nss_objects, &key);
	if (!length || length > EC_SECRET_MAXIMUM)
		return 0;
	given.length = length;
	asm volatile("" : "+r"(length));
	if (length > EC_SECRET_MAXIMUM)
		length = EC_SECRET_MAXIMUM;
	if (bpf_probe_read_user(given.bytes, length, (void *)bytes))
		return 0;
	bpf_map_update_elem(&nss_objects, &key, &given, BPF_ANY);
	remember_object(key.object);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
