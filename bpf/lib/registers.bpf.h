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

static __always_inline __u64 argument(const struct pt_regs *regs, __u8 number)
{
	switch (number) {
	case 0:
		return regs->di;
	case 1:
		return regs->si;
	case 2:
		return regs->dx;
	case 3:
		return regs->cx;
	case 4:
		return regs->r8;
	case 5:
		return regs->r9;
	}
	return 0;
}

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

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

static __always_inline __u64 argument(const struct pt_regs *regs, __u8 number)
{
	switch (number) {
	case 0:
		return regs->regs[0];
	case 1:
		return regs->regs[1];
	case 2:
		return regs->regs[2];
	case 3:
		return regs->regs[3];
	case 4:
		return regs->regs[4];
	case 5:
		return regs->regs[5];
	}
	return 0;
}

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

#else
#error "compile with -D__TARGET_ARCH_x86 or -D__TARGET_ARCH_arm64"
#endif

#endif
