/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program whose functions have the shapes that secrets.bpf.c understands: one line of standard input, "CALL NUMBER",
 * one call or change, one line of standard output. The object is laid out as the test says; see test_secrets.py.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CALL __attribute__((noinline, used, visibility("default")))

struct object {
	uint32_t type, version, state, in_init;
	unsigned char *inner; /* the client random stands at 8 in it */
	unsigned char schedule[576], exporter[64], master[48];
};

static unsigned char inner[40];
static struct object object = { .inner = inner };
static unsigned char secret[64];
static const char *absent; /* a label in a page that is in the file, but not in memory */
static volatile int used;

CALL void tell(void *handle, const char *label, const void *bytes, size_t length)
{
	used += handle && label && bytes && length;
}

CALL int make_master(void *handle, void *out, int result)
{
	(void)handle;
	memset(out, 0x77, 48);
	return result;
}

CALL int any_call(void *handle)
{
	return handle != NULL;
}

static void number_bytes(unsigned char *at, size_t length, unsigned first)
{
	for (size_t i = 0; i < length; i++)
		at[i] = first + i;
}

static int act(const char *call, int number)
{
	static unsigned char output[48];

	if (!strcmp(call, "tell")) {
		tell(&object, "EXPORTER_SECRET", secret, number);
	} else if (!strcmp(call, "tell-absent")) {
		madvise((void *)((uintptr_t)absent & -4096UL), 4096, MADV_DONTNEED);
		tell(&object, absent, secret, number);
	} else if (!strcmp(call, "tell-nowhere")) {
		tell(&object, (const char *)16, secret, number);
	} else if (!strcmp(call, "tell-unreadable")) {
		tell(&object, "EXPORTER_SECRET", (void *)16, number);
	} else if (!strcmp(call, "make")) {
		return make_master(&object, output, number);
	} else if (!strcmp(call, "call")) {
		return any_call(&object);
	} else if (!strcmp(call, "type")) {
		object.type = number;
	} else if (!strcmp(call, "version")) {
		object.version = number;
	} else if (!strcmp(call, "state")) {
		object.state = number;
	} else if (!strcmp(call, "in_init")) {
		object.in_init = number;
	} else if (!strcmp(call, "random")) {
		object.inner = number ? inner : NULL;
		number_bytes(inner + 8, 32, number);
	} else if (!strcmp(call, "master")) {
		number_bytes(object.master, number ? 48 : 0, number);
	} else if (!strcmp(call, "schedule")) {
		number_bytes(object.schedule, 576, number);
		number_bytes(object.exporter, 64, number + 1);
	} else {
		return -1;
	}
	return 0;
}

int main(int count, char **words)
{
	char call[32];
	int number;
	FILE *file = count > 1 ? fopen(words[1], "r") : NULL;

	if (file)
		absent = (char *)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fileno(file), 0) + 0x345;
	number_bytes(secret, sizeof(secret), 100);
	printf("%d\n", getpid());
	fflush(stdout);
	while (scanf("%31s %d", call, &number) == 2) {
		printf("%d\n", act(call, number));
		fflush(stdout);
	}
	return 0;
}
