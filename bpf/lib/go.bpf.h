/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What Go's runtime and compiler promise, and the few structures of Go that we read from a program's memory.
 *
 * Offsets hold for Go 1.15 to 1.27 on 64-bit machines: src/runtime/runtime2.go (g, stack, itab), src/net/net.go (conn),
 * src/net/fd_posix.go (netFD), src/internal/poll/fd_unix.go (FD).
 */
#ifndef EC_GO_BPF_H
#define EC_GO_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "registers.bpf.h"

/* type stack struct { lo, hi uintptr }, the first member of a goroutine (g) */
struct go_stack {
	__u64 low;
	__u64 high;
};

/* The frame of func (c *Conn) f(b []byte) (n int, err error) with everything on the stack. */
struct go_frame {
	__u64 return_address; /* AArch64: a free word */
	__u64 handle;
	__u64 buffer;
	__u64 length;
	__u64 capacity;
	__s64 result;
};

/* type iface struct { tab *itab; data unsafe.Pointer } */
struct go_interface {
	__u64 table;
	__u64 data;
};

/* Sorted by name, Read is the third method of net.Conn; methods follow 24 bytes of other members of an itab. */
#define GO_ITAB_READ 40
/* TCPConn{conn{fd *netFD}}; netFD{pfd poll.FD}; FD{fdmu fdMutex (16 bytes); Sysfd int} */
#define GO_NETFD_SYSFD 16

#if defined(__TARGET_ARCH_x86)

static __always_inline __u64 go_argument(const struct pt_regs *regs, __u8 number)
{
	return number == 0 ? regs->ax : number == 1 ? regs->bx : regs->cx;
}

static __always_inline __u64 go_current(const struct pt_regs *regs)
{
	return regs->r14;
}

static __always_inline __u64 go_instruction(const struct pt_regs *regs)
{
	return regs->ip;
}

#elif defined(__TARGET_ARCH_arm64)

static __always_inline __u64 go_argument(const struct pt_regs *regs, __u8 number)
{
	return number == 0 ? regs->regs[0] : number == 1 ? regs->regs[1] : regs->regs[2];
}

static __always_inline __u64 go_current(const struct pt_regs *regs)
{
	return regs->regs[28];
}

static __always_inline __u64 go_instruction(const struct pt_regs *regs)
{
	return regs->pc;
}

#endif

static __always_inline __u64 go_stack_pointer(const struct pt_regs *regs)
{
	return regs->sp;
}

static __always_inline long read_go_stack(struct go_stack *stack, __u64 goroutine)
{
	return bpf_probe_read_user(stack, sizeof(*stack), (void *)goroutine);
}

/* At entry and at a return instruction the stack pointer is the same. */
static __always_inline long read_go_frame(struct go_frame *frame, const struct pt_regs *regs)
{
	return bpf_probe_read_user(frame, sizeof(*frame), (void *)go_stack_pointer(regs));
}

/*
 * The attach cookie of a place in a Go program: the row of its hook in the low half, and in the high half the distance
 * from the place to net.(*TCPConn).Read of the same file; 0 where that is not known.
 */
struct go_cookie {
	__u32 row;
	__s32 distance;
};

static __always_inline struct go_cookie go_cookie(struct pt_regs *regs)
{
	struct go_cookie cookie = {};

	/* Linux 5.15, commit 7adfc6c9b315; without it there is no proof, so no descriptor */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_attach_cookie)) {
		__u64 value = bpf_get_attach_cookie(regs);

		cookie.row = value;
		cookie.distance = (__s64)value >> 32;
	}
	return cookie;
}

/* The descriptor behind the net.Conn at an address, or -1 if it is not proven to be a *net.TCPConn. */
static __always_inline __s32 go_descriptor(__u64 address, __u64 instruction, __s32 distance)
{
	struct go_interface connection;
	__u64 method = 0, netfd = 0;
	__s64 fd = -1;

	if (!distance || bpf_probe_read_user(&connection, sizeof(connection), (void *)address))
		return -1;
	if (bpf_probe_read_user(&method, sizeof(method), (void *)(connection.table + GO_ITAB_READ)))
		return -1;
	if (method != instruction + (__s64)distance)
		return -1;
	if (bpf_probe_read_user(&netfd, sizeof(netfd), (void *)connection.data))
		return -1;
	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)(netfd + GO_NETFD_SYSFD)))
		return -1;
	return fd >= 0 && fd <= 0x7fffffff ? fd : -1;
}

/*
 * The goroutine that makes the current system call; 0 where it cannot be told. Its register is left alone by the code
 * that enters the kernel (src/internal/runtime/syscall and src/syscall, asm_linux_*.s). With arguments on the stack
 * x86-64 has no register for it, and what is read then names nobody.
 */
static __always_inline __u64 go_current_in_system_call(void)
{
	/* Linux 5.15, commit dd6e10fbd9fb */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
		__u64 goroutine = 0;

#if defined(__TARGET_ARCH_x86)
		bpf_probe_read_kernel(&goroutine, sizeof(goroutine), &regs->r14);
#else
		bpf_probe_read_kernel(&goroutine, sizeof(goroutine), &regs->regs[28]);
#endif
		return goroutine;
	}
	return 0;
}

#endif
