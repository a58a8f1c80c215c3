/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The saved registers of a probed thread, and the two calling conventions (System V x86-64, AAPCS64) in four functions.
 * Declared by hand from the UAPI asm/ptrace.h of each architecture, so that either object compiles on either machine. */
#ifndef EC_REGISTERS_BPF_H
#define EC_REGISTERS_BPF_H

#include <linux/types.h>

#if defined(__TARGET_ARCH_x86)

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#define REGISTER_0 di
#define REGISTER_1 si
#define REGISTER_2 dx
#define REGISTER_3 cx
#define REGISTER_4 r8
#define REGISTER_5 r9

static __always_inline __u64 returned(const struct pt_regs *regs)
{
	return regs->ax;
}

/* The stack pointer names a call: equal at entry and, less the popped return address, at return. */
static __always_inline __u64 frame_at_entry(const struct pt_regs *regs)
{
	return regs->sp;
}

static __always_inline __u64 frame_at_return(const struct pt_regs *regs)
{
	return regs->sp - 8;
}

/* The eighth argument at entry: behind the return address and the seventh on the stack. 0 if it cannot be read. */
#define EIGHTH_ARGUMENT(regs)                                                                            \
	({                                                                                               \
		__u64 eighth_ = 0;                                                                       \
		bpf_probe_read_user(&eighth_, sizeof(eighth_), (void *)((regs)->sp + 16));               \
		eighth_;                                                                                 \
	})
/* At entry: where the function is in memory. */
static __always_inline __u64 instruction(const struct pt_regs *regs)
{
	return regs->ip;
}

/* At entry: where the function will return to; 0 if that cannot be read. */
static __always_inline __u64 return_address(const struct pt_regs *regs)
{
	__u64 address = 0;

	bpf_probe_read_user(&address, sizeof(address), (void *)regs->sp);
	return address;
}

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

#define REGISTER_0 regs[0]
#define REGISTER_1 regs[1]
#define REGISTER_2 regs[2]
#define REGISTER_3 regs[3]
#define REGISTER_4 regs[4]
#define REGISTER_5 regs[5]

static __always_inline __u64 returned(const struct pt_regs *regs)
{
	return regs->regs[0];
}

static __always_inline __u64 frame_at_entry(const struct pt_regs *regs)
{
	return regs->sp;
}

static __always_inline __u64 frame_at_return(const struct pt_regs *regs)
{
	return regs->sp;
}

#define EIGHTH_ARGUMENT(regs) ((regs)->regs[7])
static __always_inline __u64 instruction(const struct pt_regs *regs)
{
	return regs->pc;
}

static __always_inline __u64 return_address(const struct pt_regs *regs)
{
	return regs->regs[30];
}

#else
#error "compile with -D__TARGET_ARCH_x86 or -D__TARGET_ARCH_arm64"
#endif

/*
 * Argument by number, from 0. All are read before one is chosen, and each read is pinned: left alone, the compiler
 * chooses an address and reads once, and the verifier refuses a computed offset into the context.
 */
static __always_inline __u64 argument(const struct pt_regs *regs, __u8 number)
{
	__u64 first = regs->REGISTER_0, second = regs->REGISTER_1, third = regs->REGISTER_2;
	__u64 fourth = regs->REGISTER_3, fifth = regs->REGISTER_4, sixth = regs->REGISTER_5;

	asm volatile("" : "+r"(first), "+r"(second), "+r"(third));
	asm volatile("" : "+r"(fourth), "+r"(fifth), "+r"(sixth));
	switch (number) {
	case 0:
		return first;
	case 1:
		return second;
	case 2:
		return third;
	case 3:
		return fourth;
	case 4:
		return fifth;
	case 5:
		return sixth;
	}
	return 0;
}

#endif
