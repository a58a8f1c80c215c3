// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Read and write calls: a handle, a buffer, a length, and a count that comes back.
 *
 *   int SSL_read(SSL *ssl, void *buf, int num)                           and SSL_write       (OpenSSL, BoringSSL)
 *   int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)  and SSL_write_ex    (OpenSSL 1.1.1)
 *   ssize_t gnutls_record_recv(gnutls_session_t, void *data, size_t)     and the like
 *   int ssl_SecureRecv(sslSocket *, unsigned char *data, int, int flags) and ssl_SecureSend  (NSS, internal)
 *   int tls_open_app_data(SSL *ssl, Span *out, ...), where out is told      (BoringSSL, internal)
 *
 * A row of the array "hooks" says which argument is which; the attach cookie names the row, and above it that of
 * "parameter_rows".
 *
 * Invariants
 * 1. A call is remembered by (process, stack pointer at entry). That holds for coroutines that change threads, and a
 *    file that is probed twice (one inode through two overlays) still yields each call once: the second return
 *    finds nothing.
 * 2. Nothing is sent for a call that failed. What is sent is what the call returned.
 * 3. A library function that is built on another hooked one is not shown twice: the outer return sees that a record of
 *    this direction was made since it was entered.
 *    Likewise a flush of what was written before (gnutls_record_uncork) covers the calls inside it.
 * 4. Every byte the call moved is in a record or in "losses", and the stream offset counts it either way.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "lib/registers.bpf.h"
#include <bpf/bpf_tracing.h>
#include "wire.h"
#include "lib/emit.bpf.h"
#include "lib/target.bpf.h"
#include "lib/conversation.bpf.h"
#include "lib/deliver.bpf.h"
#include "lib/inferred.bpf.h"

struct call_key {
	__u64 frame; /* stack pointer at entry */
	__u32 pid;
	__u32 _padding;
};

struct call {
	__u64 entered_ns;
	__u64 handle;
	__u64 buffer;
	__u64 length; /* the argument: a length or a pointer to one */
	__u32 hook;
	__u16 parameters;
	__u16 seeking; /* this call put its thread into "seekers" */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

/* int SSL_set_fd(SSL *ssl, int fd), SSL_set_rfd, SSL_set_wfd: the library is told its socket. */
static __always_inline int learn_descriptor(const struct conversation_key *who, __s32 fd)
{
	struct conversation *conversation = get_conversation(who, bpf_ktime_get_boot_ns());
	struct ec_tuple_value unknown = {};

	if (conversation) {
		conversation->fd = fd;
		conversation->tuple = unknown;
	}
	return 0;
}

/*
 * ssize_t gnutls_record_recv_packet(gnutls_session_t session, gnutls_packet_t *packet)
 * void gnutls_packet_get(gnutls_packet_t packet, gnutls_datum_t *data, unsigned char *sequence)
 */
struct packet_key {
	__u64 packet;
	__u32 pid;
	__u32 _padding;
};

/* Packets that were read and not looked into yet, and the handle they came from. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct packet_key);
	__type(value, __u64);
} unopened_packets SEC(".maps");

struct datum {
	__u64 start;
	__u32 size;
};

static __always_inline void remember_packet(const struct call *call, __u32 pid)
{
	struct packet_key key = { .pid = pid };

	if (bpf_probe_read_user(&key.packet, sizeof(key.packet), (void *)call->buffer) || !key.packet)
		return;
	if (bpf_map_update_elem(&unopened_packets, &key, &call->handle, BPF_ANY))
		count_loss(table_full_records);
}

/* The handle that the packet came from; 0 where it is not known, or was shown. */
static __always_inline __u64 packet_owner(__u64 packet, __u32 pid)
{
	struct packet_key key = { .packet = packet, .pid = pid };
	__u64 *owner = bpf_map_lookup_elem(&unopened_packets, &key);

	return owner ? *owner : 0;
}

/* What the program was told of its packet; the length, which is 0 if nothing was asked. It is shown once. */
static __always_inline __u64 open_packet(struct call *call, __u32 pid)
{
	struct packet_key key = { .packet = call->length, .pid = pid };
	struct datum datum = {};

	if (!call->buffer || bpf_probe_read_user(&datum, sizeof(datum), (void *)call->buffer))
		return 0;
	bpf_map_delete_elem(&unopened_packets, &key);
	call->buffer = datum.start;
	return datum.size;
}

/* What a call told of the bytes that it opened; the length, which is 0 if there are none. */
static __always_inline __s64 open_span(struct call *call, __s64 result)
{
	struct {
		__u64 start;
		__u64 size;
	} span = {};

	if (result || bpf_probe_read_user(&span, sizeof(span), (void *)call->length))
		return 0;
	call->buffer = span.start;
	return span.size;
}

#define PEEK 2 /* MSG_PEEK, and PR_MSG_PEEK in NSPR's prio.h */

/* Whether a call is inside another one that covers it. Calls inside have frames below; a cover that never returned, as
 * when its thread was killed, is one that is passed over by a call from above. */
static __always_inline int is_covered(struct conversation *conversation, __u64 frame)
{
	if (!conversation->covered)
		return 0;
	if (frame < conversation->covered)
		return 1;
	conversation->covered = 0;
	return 0;
}

static __always_inline int enter(struct pt_regs *regs, __u64 cookie)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u32 hook_row = cookie;
	struct ec_hook *hook;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	hook = bpf_map_lookup_elem(&hooks, &hook_row);
	if (!hook)
		return 0;

	struct conversation_key who = { .handle = argument(regs, hook->handle), .pid = pid };

	if (hook->shape == EC_SHAPE_DESCRIPTOR)
		return learn_descriptor(&who, argument(regs, 1));
	if (hook->shape == EC_SHAPE_END)
		return end_conversation(&who, wanted, hook->flags);
	if ((hook->flags & EC_HOOK_PEEKS) && (argument(regs, 3) & PEEK))
		return 0;
	if (hook->shape == EC_SHAPE_PACKET_GET) {
		who.handle = packet_owner(who.handle, pid);
		if (!who.handle)
			return 0;
	}

	struct call_key key = { .frame = frame_at_entry(regs), .pid = pid };
	struct call call = {
		.entered_ns = bpf_ktime_get_boot_ns(),
		.handle = who.handle,
		.buffer = argument(regs, hook->buffer),
		.length = argument(regs, hook->length),
		.hook = hook_row,
		.parameters = cookie >> 32,
	};
	struct conversation *conversation = get_conversation(&who, call.entered_ns);

	if (conversation && is_covered(conversation, key.frame))
		return 0;
	if (conversation && hook->shape == EC_SHAPE_COVER)
		conversation->covered = key.frame;
	if (conversation && worth_seeking(conversation)) {
		call.seeking = 1;
		seek_tuple(&who);
		note_call(&who);
	}
	if (bpf_map_update_elem(&calls, &key, &call, BPF_ANY))
		count_loss(table_full_records);
	return 0;
}

static __always_inline int leave(struct pt_regs *regs, enum loop loop)
{
	struct call_key key = { .frame = frame_at_return(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct call *found = bpf_map_lookup_elem(&calls, &key);
	struct emission emission = {};
	struct conversation *conversation;
	struct conversation_key who = { .pid = key.pid };
	struct ec_hook *hook;
	struct call call;
	__u64 length, now;
	__s64 result;
	int silent;

	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&calls, &key);
	if (call.seeking)
		end_seek();
	hook = bpf_map_lookup_elem(&hooks, &call.hook);
	if (!hook)
		return 0;
	if (hook->shape == EC_SHAPE_COVER) {
		who.handle = call.handle;
		conversation = get_conversation(&who, call.entered_ns);
		if (conversation)
			conversation->covered = 0;
		return 0;
	}
	/* Kernels without bpf_loop (5.17) have no tracepoints of socket calls (6.3) to infer from, and little stack. */
	if (loop == LOOP_HELPER && call.seeking) {
		who.handle = call.handle;
		note_silence(&who);
	}
	result = returned(regs);
	if (hook->length_kind != EC_LENGTH_RETURNED64)
		result = (__s32)result;
	if (hook->shape == EC_SHAPE_PACKET_GET)
		result = open_packet(&call, key.pid);
	if (hook->length_kind == EC_LENGTH_SPAN)
		result = open_span(&call, result);
	if (result <= 0)
		return 0;
	if (hook->shape == EC_SHAPE_PACKET) {
		remember_packet(&call, key.pid);
		return 0;
	}
	length = result;
	if (hook->length_kind == EC_LENGTH_POINTED) {
		if (result != 1 || bpf_probe_read_user(&length, sizeof(length), (void *)call.length))
			return 0;
	}
	if (!length)
		return 0;
	who.handle = call.handle;
	conversation = entered_conversation(&who, call.entered_ns);
	emission.wanted = get_settings();
	if (!conversation || !emission.wanted || conversation->emitted_ns[hook->direction & 1] > call.entered_ns)
		return 0;
	emission.buffer = call.buffer;
	if (call.parameters && !conversation->tuple.version)
		learn_parameters(conversation, who.handle, call.parameters);
	now = bpf_ktime_get_boot_ns();
	silent = loop == LOOP_HELPER && call.seeking && !has_tuple(conversation) && conversation->fd < 0;
	if (silent && !(hook->direction & 1))
		infer_from_receive(&who, conversation, length, now);
	begin_emission(&emission, &who, conversation, hook, call.hook, now);
	deliver(&emission, conversation, length, loop);
	if (silent && (hook->direction & 1))
		note_write(&who, conversation, length, now);
	return 0;
}

/* --- programs: which of them are loaded is decided by feature tests in user space --- */

SEC("uprobe")
int call_enter(struct pt_regs *regs)
{
	return enter(regs, bpf_get_attach_cookie(regs));
}

/* Kernels without attach cookies (before 5.15, commit 7adfc6c9b315): one program for each row. */
#define PLAIN_SLOT(N)                                     \
	SEC("uprobe") int call_enter_##N(struct pt_regs *regs) \
	{                                                 \
		return enter(regs, N);                    \
	}
PLAIN_SLOT(0)
PLAIN_SLOT(1)
PLAIN_SLOT(2)
PLAIN_SLOT(3)
PLAIN_SLOT(4)
PLAIN_SLOT(5)
PLAIN_SLOT(6)
PLAIN_SLOT(7)
PLAIN_SLOT(8)
PLAIN_SLOT(9)
PLAIN_SLOT(10)
PLAIN_SLOT(11)
PLAIN_SLOT(12)
PLAIN_SLOT(13)
PLAIN_SLOT(14)
PLAIN_SLOT(15)
PLAIN_SLOT(16)
PLAIN_SLOT(17)
PLAIN_SLOT(18)
PLAIN_SLOT(19)
PLAIN_SLOT(20)
PLAIN_SLOT(21)
PLAIN_SLOT(22)
PLAIN_SLOT(23)
PLAIN_SLOT(24)
PLAIN_SLOT(25)
PLAIN_SLOT(26)
PLAIN_SLOT(27)
PLAIN_SLOT(28)
PLAIN_SLOT(29)
PLAIN_SLOT(30)
PLAIN_SLOT(31)
PLAIN_SLOT(32)
PLAIN_SLOT(33)
PLAIN_SLOT(34)
PLAIN_SLOT(35)
PLAIN_SLOT(36)
PLAIN_SLOT(37)
PLAIN_SLOT(38)
PLAIN_SLOT(39)

SEC("uretprobe")
int call_leave(struct pt_regs *regs)
{
	return leave(regs, LOOP_HELPER);
}

SEC("uretprobe")
int call_leave_bounded(struct pt_regs *regs)
{
	return leave(regs, LOOP_BOUNDED);
}

/* SSL *SSL_new(SSL_CTX *ctx): where the function that ends objects is not known, the one that makes them tells. */
SEC("uretprobe")
int call_begin(struct pt_regs *regs)
{
	struct conversation_key who = { .handle = returned(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct ec_settings *wanted = get_settings();

	if (!wanted || !who.handle || !is_target(wanted, who.pid))
		return 0;
	return end_conversation(&who, wanted, 0);
}

/* Where a return probe would kill the program (seccomp on unfixed 6.11 to 6.13): writes only, at entry, marked. */
SEC("uprobe")
int call_assume(struct pt_regs *regs)
{
	struct ec_settings *wanted = get_settings();
	__u32 hook_row = bpf_get_attach_cookie(regs);
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct conversation *conversation;
	struct emission emission = {};
	struct ec_hook *hook;
	__u64 length, now;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	hook = bpf_map_lookup_elem(&hooks, &hook_row);
	if (!hook || hook->shape != EC_SHAPE_PLAINTEXT)
		return 0;
	/* what is asked for stands behind the buffer in all calls of this shape */
	length = argument(regs, hook->buffer + 1);
	if (!(hook->flags & EC_HOOK_WIDE)) {
		if ((__s32)length <= 0)
			return 0;
		length = (__u32)length;
	}
	if (!length)
		return 0;

	struct conversation_key who = { .handle = argument(regs, hook->handle), .pid = pid };

	now = bpf_ktime_get_boot_ns();
	conversation = get_conversation(&who, now);
	if (!conversation)
		return 0;
	emission.wanted = wanted;
	emission.buffer = argument(regs, hook->buffer);
	begin_emission(&emission, &who, conversation, hook, hook_row, now);
	emission.head.header.flags |= EC_FLAG_ASSUMED;
	deliver(&emission, conversation, length, LOOP_HELPER);
	return 0;
}

/* --- the socket calls inside TLS calls, and those of threads whose TLS calls make none --- */

/* Typed tracepoints since 6.3 (commit 6e6eda44b939); TCP and UDP alike. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(socket_send, struct sock *sk, int size, int flags)
{
	if (is_seeking())
		return on_nested_socket_call(sk);
	infer_from_send(sk, size);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(socket_receive, struct sock *sk, int size, int flags)
{
	if (is_seeking())
		return on_nested_socket_call(sk);
	if (!(flags & PEEK))
		note_receive(sk, size);
	return 0;
}

SEC("kprobe/tcp_sendmsg")
int socket_send_kprobe(struct pt_regs *regs)
{
	return on_nested_socket_call((const struct sock *)argument(regs, 0));
}

SEC("kprobe/tcp_recvmsg")
int socket_receive_kprobe(struct pt_regs *regs)
{
	return on_nested_socket_call((const struct sock *)argument(regs, 0));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
