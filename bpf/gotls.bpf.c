// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Go's crypto/tls.
 *
 *   func (c *Conn) Read(b []byte) (int, error)
 *   func (c *Conn) Write(b []byte) (int, error)
 *   func (c *Conn) Close() error
 *   func (c *Conn) clientHandshake(...) error, serverHandshake(...) error
 *
 * Two conventions (src/cmd/compile/abi-internal.md of Go): since Go 1.17 on x86-64 and 1.18 on AArch64 arguments and
 * results are in registers, and the goroutine is in one as well; before, arguments and results are on the stack above
 * the return address. User space finds out from the code which one a file has, and where its functions return: a
 * return probe would replace a return address on a stack that Go's runtime reads and moves.
 *
 * Invariants
 * 1. In registers: a call is remembered by (process, goroutine, depth of its frame below the top of the goroutine's
 *    stack). When a stack grows, it is copied to the top of a larger one, so that the depth stays; threads and the
 *    addresses of the stack do not matter. A function begins anew after its stack has grown: the second entry of
 *    a call replaces the first.
 * 2. A buffer that lies on the stack of its goroutine moves with it, and is read where it is at the return.
 * 3. On the stack: the arguments stand where the results are, so nothing is remembered. Whether a return was seen
 *    already (a file that is probed twice through two overlays) is known by a mark that the next entry takes off.
 * 4. The descriptor is taken from a connection only if the method table of its interface proves that it is a
 *    *net.TCPConn of this very file. Else it is that of the socket call which the same goroutine makes inside the call.
 * 5. A handshake begins a conversation, because the memory of a connection that nobody closed is used again.
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
#include "lib/go.bpf.h"

struct go_call_key {
	__u64 goroutine;
	__u64 depth;
	__u32 pid;
	__u32 _padding;
};

struct go_call {
	__u64 entered_ns;
	__u64 handle;
	__u64 buffer;
	__u64 length;
	struct go_stack stack; /* as it was at entry */
	__u32 hook;
	__u8 direction;
	__u8 _padding[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct go_call_key);
	__type(value, struct go_call);
} go_calls SEC(".maps");

struct go_return_key {
	__u64 handle;
	__u32 pid;
	__u32 direction;
};

/* The last return of a connection whose next call has not begun, by the stack pointer: see invariant 3. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct go_return_key);
	__type(value, __u64);
} go_returns SEC(".maps");

struct go_seeker_key {
	__u64 goroutine;
	__u32 pid;
	__u32 _padding;
};

/* Goroutines inside a call of a conversation without 4-tuple. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct go_seeker_key);
	__type(value, struct conversation_key);
} go_seekers SEC(".maps");

/* type Conn struct { conn net.Conn; ... } */
static __always_inline void learn_connection(struct conversation *conversation, __u64 handle,
					     const struct pt_regs *regs, struct go_cookie cookie)
{
	__s32 fd = go_descriptor(handle, go_instruction(regs), cookie.distance);

	if (fd < 0)
		return;
	conversation->fd = fd;
	read_descriptor(&conversation->tuple, fd);
}

static __always_inline void go_seek(const struct conversation_key *who, __u64 goroutine)
{
	struct go_seeker_key key = { .goroutine = goroutine, .pid = who->pid };

	bpf_map_update_elem(&go_seekers, &key, who, BPF_ANY);
}

static __always_inline int go_enter(struct pt_regs *regs, __u8 direction)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct conversation_key who = { .handle = go_argument(regs, 0), .pid = pid };
	struct go_call_key key = { .goroutine = go_current(regs), .pid = pid };
	struct go_cookie cookie = go_cookie(regs);
	struct go_call call = {
		.entered_ns = bpf_ktime_get_boot_ns(),
		.handle = who.handle,
		.buffer = go_argument(regs, 1),
		.length = go_argument(regs, 2),
		.hook = cookie.row,
		.direction = direction,
	};
	struct conversation *conversation;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	if (read_go_stack(&call.stack, key.goroutine)) {
		count_loss(table_full_records);
		return 0;
	}
	key.depth = call.stack.high - go_stack_pointer(regs);
	conversation = get_conversation(&who, call.entered_ns);
	if (conversation && !has_tuple(conversation))
		learn_connection(conversation, who.handle, regs, cookie);
	if (conversation && !has_tuple(conversation))
		go_seek(&who, key.goroutine);
	if (bpf_map_update_elem(&go_calls, &key, &call, BPF_ANY))
		count_loss(table_full_records);
	return 0;
}

static __always_inline void go_deliver(struct pt_regs *regs, const struct go_call *call, struct go_cookie cookie,
				       __u64 length, enum loop loop)
{
	struct conversation_key who = { .handle = call->handle, .pid = bpf_get_current_pid_tgid() >> 32 };
	struct conversation *conversation = get_conversation(&who, call->entered_ns);
	const struct ec_hook hook = { .direction = call->direction };
	struct emission emission = {};

	emission.wanted = get_settings();
	if (!conversation || !emission.wanted)
		return;
	if (!has_tuple(conversation))
		learn_connection(conversation, who.handle, regs, cookie);
	emission.buffer = call->buffer;
	begin_emission(&emission, &who, conversation, &hook, call->hook, bpf_ktime_get_boot_ns());
	deliver(&emission, conversation, length, loop);
}

static __always_inline int go_leave(struct pt_regs *regs, enum loop loop)
{
	struct go_call_key key = { .goroutine = go_current(regs), .pid = bpf_get_current_pid_tgid() >> 32 };
	struct go_seeker_key seeker = { .goroutine = key.goroutine, .pid = key.pid };
	__s64 result = go_argument(regs, 0); /* the first result is where the first argument was */
	struct go_stack stack;
	struct go_call *found;
	struct go_call call;

	if (read_go_stack(&stack, key.goroutine))
		return 0;
	key.depth = stack.high - go_stack_pointer(regs);
	found = bpf_map_lookup_elem(&go_calls, &key);
	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&go_calls, &key);
	bpf_map_delete_elem(&go_seekers, &seeker);
	if (result <= 0 || (__u64)result > call.length)
		return 0;
	if (call.buffer >= call.stack.low && call.buffer < call.stack.high)
		call.buffer += stack.high - call.stack.high;
	go_deliver(regs, &call, go_cookie(regs), result, loop);
	return 0;
}

/* Arguments on the stack: the tuple is sought, the mark of the last return is taken off. */
static __always_inline int go_stack_enter(struct pt_regs *regs, __u8 direction)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct go_frame frame;
	struct conversation *conversation;

	if (!wanted || !is_target(wanted, pid) || read_go_frame(&frame, regs))
		return 0;

	struct go_return_key key = { .handle = frame.handle, .pid = pid, .direction = direction };
	struct conversation_key who = { .handle = frame.handle, .pid = pid };

	bpf_map_delete_elem(&go_returns, &key);
	conversation = get_conversation(&who, bpf_ktime_get_boot_ns());
	if (conversation && !has_tuple(conversation))
		learn_connection(conversation, who.handle, regs, go_cookie(regs));
	return 0;
}

static __always_inline int go_stack_leave(struct pt_regs *regs, __u8 direction, enum loop loop)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 position = go_stack_pointer(regs);
	struct go_cookie cookie = go_cookie(regs);
	struct go_frame frame;
	__u64 *marked;

	if (!wanted || !is_target(wanted, pid))
		return 0;
	if (read_go_frame(&frame, regs)) {
		count_loss(table_full_records);
		return 0;
	}

	struct go_return_key key = { .handle = frame.handle, .pid = pid, .direction = direction };
	struct go_call call = {
		.entered_ns = bpf_ktime_get_boot_ns(),
		.handle = frame.handle,
		.buffer = frame.buffer,
		.length = frame.length,
		.hook = cookie.row,
		.direction = direction,
	};

	if (frame.result <= 0)
		return 0;
	/* TLS 1.0 with CBC: Write sends the first byte by itself and goes on with b = b[1:] */
	if (direction == EC_WRITE && (__u64)frame.result == frame.length + 1) {
		call.buffer -= 1;
		call.length += 1;
	}
	if ((__u64)frame.result > call.length)
		return 0;
	marked = bpf_map_lookup_elem(&go_returns, &key);
	if (marked && *marked == position)
		return 0;
	bpf_map_update_elem(&go_returns, &key, &position, BPF_ANY);
	go_deliver(regs, &call, cookie, frame.result, loop);
	return 0;
}

static __always_inline int go_ended(__u64 handle)
{
	struct ec_settings *wanted = get_settings();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct conversation_key who = { .handle = handle, .pid = pid };

	if (!wanted || !is_target(wanted, pid))
		return 0;
	return end_conversation(&who, wanted, 0);
}

/* --- programs --- */

SEC("uprobe")
int go_read_enter(struct pt_regs *regs)
{
	return go_enter(regs, EC_READ);
}

SEC("uprobe")
int go_write_enter(struct pt_regs *regs)
{
	return go_enter(regs, EC_WRITE);
}

SEC("uprobe")
int go_return(struct pt_regs *regs)
{
	return go_leave(regs, LOOP_HELPER);
}

SEC("uprobe")
int go_return_bounded(struct pt_regs *regs)
{
	return go_leave(regs, LOOP_BOUNDED);
}

SEC("uprobe")
int go_end(struct pt_regs *regs)
{
	return go_ended(go_argument(regs, 0));
}

SEC("uprobe")
int go_stack_read_enter(struct pt_regs *regs)
{
	return go_stack_enter(regs, EC_READ);
}

SEC("uprobe")
int go_stack_write_enter(struct pt_regs *regs)
{
	return go_stack_enter(regs, EC_WRITE);
}

SEC("uprobe")
int go_stack_read_return(struct pt_regs *regs)
{
	return go_stack_leave(regs, EC_READ, LOOP_HELPER);
}

SEC("uprobe")
int go_stack_write_return(struct pt_regs *regs)
{
	return go_stack_leave(regs, EC_WRITE, LOOP_HELPER);
}

SEC("uprobe")
int go_stack_read_return_bounded(struct pt_regs *regs)
{
	return go_stack_leave(regs, EC_READ, LOOP_BOUNDED);
}

SEC("uprobe")
int go_stack_write_return_bounded(struct pt_regs *regs)
{
	return go_stack_leave(regs, EC_WRITE, LOOP_BOUNDED);
}

SEC("uprobe")
int go_stack_end(struct pt_regs *regs)
{
	struct go_frame frame;

	return read_go_frame(&frame, regs) ? 0 : go_ended(frame.handle);
}

/* --- the socket calls inside: by the goroutine, for its thread may run another one meanwhile --- */

static __always_inline int on_go_socket_call(const struct sock *sk)
{
	struct go_seeker_key key = { .pid = bpf_get_current_pid_tgid() >> 32 };
	struct conversation *conversation;
	struct conversation_key *found;
	struct conversation_key who;

	key.goroutine = go_current_in_system_call();
	if (!key.goroutine)
		return 0;
	found = bpf_map_lookup_elem(&go_seekers, &key);
	if (!found)
		return 0;
	who = *found;
	/* made anew where the handshake has just ended what was there before */
	conversation = get_conversation(&who, bpf_ktime_get_boot_ns());
	if (conversation && !has_tuple(conversation)) {
		struct ec_tuple_value tuple = {};

		read_socket(&tuple, sk, EC_TUPLE_NESTED_CALL);
		if (tuple.source < EC_TUPLE_NOT_INET)
			conversation->tuple = tuple;
	}
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(go_socket_send, struct sock *sk)
{
	return on_go_socket_call(sk);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(go_socket_receive, struct sock *sk)
{
	return on_go_socket_call(sk);
}

SEC("kprobe/tcp_sendmsg")
int go_socket_send_kprobe(struct pt_regs *regs)
{
	return on_go_socket_call((const struct sock *)argument(regs, 0));
}

SEC("kprobe/tcp_recvmsg")
int go_socket_receive_kprobe(struct pt_regs *regs)
{
	return on_go_socket_call((const struct sock *)argument(regs, 0));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
