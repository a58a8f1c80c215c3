/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens around the calls: threads that take turns, fibers on stacks of their own, sudden
 * death, a seccomp filter.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define FIBER_STACK (256u << 10)

/* Threads */

struct turns {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct conversation *it;
	bool (*step)(struct conversation *);
	unsigned turn;
	bool finished;
};

struct participant {
	struct turns *turns;
	unsigned number;
	pthread_t thread;
};

static void *take_turns(void *argument)
{
	struct participant *me = argument;
	struct turns *turns = me->turns;

	pthread_mutex_lock(&turns->lock);
	while (!turns->finished) {
		if (turns->turn % options.threads != me->number) {
			pthread_cond_wait(&turns->changed, &turns->lock);
			continue;
		}
		turns->finished = !turns->step(turns->it);
		turns->turn++;
		pthread_cond_broadcast(&turns->changed);
	}
	pthread_mutex_unlock(&turns->lock);
	return NULL;
}

/* Repeat a step until it says that nothing is left. With --threads each call is made by the next
 * thread in turn: the mutex is what OpenSSL asks of programs that share a connection, the turn
 * makes the stream the same in every run. */
bool repeat_in_turn(struct conversation *it, bool (*step)(struct conversation *))
{
	struct turns turns = {.it = it, .step = step};
	struct participant participants[TIDS_MAXIMUM];
	unsigned i;

	if (options.threads < 2) {
		while (step(it))
			;
		return !it->wrong;
	}
	pthread_mutex_init(&turns.lock, NULL);
	pthread_cond_init(&turns.changed, NULL);
	for (i = 0; i < options.threads; i++) {
		participants[i].turns = &turns;
		participants[i].number = i;
		if (pthread_create(&participants[i].thread, NULL, take_turns, &participants[i]))
			fail("no thread");
	}
	for (i = 0; i < options.threads; i++)
		pthread_join(participants[i].thread, NULL);
	return !it->wrong;
}

/* The client speaks first and then listens; the server listens first. */
bool exchange(struct conversation *it)
{
	bool first_writes = it->side == SIDE_CLIENT;

	return repeat_in_turn(it, first_writes ? write_step : read_step) &&
	       repeat_in_turn(it, first_writes ? read_step : write_step);
}

/* Fibers */

struct fiber {
	ucontext_t context;
	struct fiber *other;
	struct conversation *it;
	bool yields_inside;  /* in the BIO, in the middle of a TLS call */
	bool yields_between; /* after each TLS call */
	bool finished;
};

static ucontext_t fibers_return;
static struct fiber *fiber_running; /* its thread is the only one that uses fibers */

static void fiber_switch(struct fiber *from)
{
	if (from->other->finished)
		return;
	fiber_running = from->other;
	swapcontext(&from->context, &from->other->context);
}

void fiber_yield(struct conversation *it)
{
	if (it->fiber && it->fiber->yields_inside)
		fiber_switch(it->fiber);
}

static void fiber_body(void)
{
	struct fiber *me = fiber_running;
	bool (*steps[])(struct conversation *) = {write_step, read_step};
	unsigned i;

	for (i = 0; i < 2; i++)
		while (steps[i](me->it))
			if (me->yields_between)
				fiber_switch(me);
	me->finished = true;
}

static void fiber_open(struct fiber *fiber, struct fiber *other, struct conversation *it,
		       void *stack)
{
	fiber->other = other;
	fiber->it = it;
	getcontext(&fiber->context);
	fiber->context.uc_stack.ss_sp = stack;
	fiber->context.uc_stack.ss_size = FIBER_STACK;
	fiber->context.uc_link = &fibers_return;
	makecontext(&fiber->context, fiber_body, 0);
	it->fiber = fiber;
}

/* Two connections of one thread, each on a stack of its own. Nested: while the first is inside a
 * TLS call, the second makes whole calls. Interleaved: each is inside a call when the other starts
 * or ends one, so calls do not end in the reverse order of their beginning. Up and down say where
 * the second stack lies; both orders exist in the wild. */
void exchange_in_fibers(struct conversation *first, struct conversation *second)
{
	struct fiber fibers[2] = {0};
	bool second_above = options.fibers != FIBERS_NESTED_DOWN;
	char *stacks = mmap(NULL, 2 * FIBER_STACK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (stacks == MAP_FAILED)
		fail("no stacks");
	fibers[0].yields_inside = true;
	fibers[1].yields_inside = options.fibers == FIBERS_INTERLEAVED;
	fibers[1].yields_between = !fibers[1].yields_inside;
	fiber_open(&fibers[0], &fibers[1], first, second_above ? stacks : stacks + FIBER_STACK);
	fiber_open(&fibers[1], &fibers[0], second, second_above ? stacks + FIBER_STACK : stacks);
	while (!fibers[0].finished || !fibers[1].finished) {
		fiber_running = fibers[0].finished ? &fibers[1] : &fibers[0];
		swapcontext(&fibers_return, &fiber_running->context);
	}
	first->fiber = second->fiber = NULL;
	munmap(stacks, 2 * FIBER_STACK);
}

/* Death */

struct victim {
	struct conversation *it;
	pid_t tid;
};

static void *be_blocked(void *argument)
{
	struct victim *me = argument;
	unsigned char *buffer = malloc(DYING_BYTES);

	fill_payload('d', 0, 0, buffer, DYING_BYTES);
	__atomic_store_n(&me->tid, thread_id(), __ATOMIC_RELEASE);
	if (options.dying == DYING_IN_READ)
		SSL_read(me->it->ssl, buffer, 16384);
	else
		SSL_write(me->it->ssl, buffer, DYING_BYTES);
	fail("the call returned, so nobody died inside it");
}

/* The first word of the file is the number of the system call a thread waits in. */
static long blocked_in(pid_t tid)
{
	char path[64], text[256];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return -1;
	text[length] = '\0';
	return text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
}

/* Be killed while another thread is inside a TLS call: its entry was seen, its return never comes.
 */
void die_mid_call(struct conversation *it)
{
	struct victim victim = {.it = it};
	struct timespec pause = {.tv_nsec = 1000000};
	long wanted = options.dying == DYING_IN_READ ? SYS_read : SYS_write;
	pthread_t thread;
	pid_t tid;

	if (pthread_create(&thread, NULL, be_blocked, &victim))
		fail("no thread");
	while (!(tid = __atomic_load_n(&victim.tid, __ATOMIC_ACQUIRE)) || blocked_in(tid) != wanted)
		nanosleep(&pause, NULL);
	report("{\"event\":\"dying\",\"side\":\"%s\",\"pid\":%d,\"tid\":%d,\"ssl\":\"%p\","
	       "\"inside\":\"%s\"}",
	       side_name(it->side), getpid(), tid, (void *)it->ssl,
	       options.dying == DYING_IN_READ ? "SSL_read" : "SSL_write");
	kill(getpid(), SIGKILL);
}

/* Confinement */

#if defined(__x86_64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the seccomp filter names no architecture for this machine"
#endif

/* What the rest of a connection needs and no more; above all nothing that only a return probe would
 * call. */
static const int allowed_calls[] = {
	SYS_read,
	SYS_write,
	SYS_readv,
	SYS_writev,
	SYS_pread64,
	SYS_recvfrom,
	SYS_sendto,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_close,
	SYS_shutdown,
	SYS_getsockname,
	SYS_getpeername,
	SYS_setsockopt,
	SYS_getsockopt,
	SYS_ppoll,
	SYS_fcntl,
	SYS_futex,
	SYS_brk,
	SYS_mmap,
	SYS_munmap,
	SYS_mprotect,
	SYS_madvise,
	SYS_mremap,
	SYS_clock_gettime,
	SYS_clock_nanosleep,
	SYS_getrandom,
	SYS_getpid,
	SYS_gettid,
	SYS_clone,
	SYS_clone3,
	SYS_rseq,
	SYS_set_robust_list,
	SYS_rt_sigprocmask,
	SYS_rt_sigreturn,
	SYS_restart_syscall,
	SYS_sched_getaffinity,
	SYS_exit,
	SYS_exit_group,
#ifdef SYS_poll
	SYS_poll,
#endif
#ifdef SYS_fstat
	SYS_fstat,
#endif
#ifdef SYS_newfstatat
	SYS_newfstatat,
#endif
};

#define ALLOWED_COUNT (sizeof(allowed_calls) / sizeof(allowed_calls[0]))

/* The calling thread and those it starts are killed, with their process, for any system call not in
 * the list. */
void confine(void)
{
	struct sock_filter filter[ALLOWED_COUNT + 7] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCHITECTURE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = {.len = ALLOWED_COUNT + 6, .filter = filter};
	char status[4096] = "";
	char *mode;
	unsigned i;
	int fd = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);

	for (i = 0; i < ALLOWED_COUNT; i++)
		filter[4 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							     (__u32)allowed_calls[i],
							     (__u8)(ALLOWED_COUNT - i), 0);
	filter[4 + ALLOWED_COUNT] =
		(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	filter[5 + ALLOWED_COUNT] =
		(struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		fail("seccomp: %s", strerror(errno));
	if (read(fd, status, sizeof(status) - 1) < 0)
		fail("status: %s", strerror(errno));
	close(fd);
	mode = strstr(status, "Seccomp:\t");
	report("{\"event\":\"confined\",\"pid\":%d,\"tid\":%d,\"mode\":%ld,\"allowed_calls\":%zu}",
	       getpid(), thread_id(), mode ? strtol(mode + 9, NULL, 10) : -1, ALLOWED_COUNT);
}
