/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that tells secrets with their client random, in the ways that told.bpf.c understands: one line of standard
 * input, "CALL NUMBER", one call, one line of standard output. See test_told.py.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CALL __attribute__((noinline, noipa, used, visibility("default"))) /* what it is handed is in memory */

struct parts {
	const char *label;
	uint64_t label_length;
	const unsigned char *secret;
	uint64_t secret_length;
};

struct outer {
	uint64_t before;
	struct parts *inner;
};

static unsigned char random_bytes[32], secret[80];
static const char *absent; /* a label in a page that is in the file, but not in memory */
static volatile int used;

/* label, its length and the random are arguments, the secret is two pointers away */
CALL void tell(const char *label, uint64_t length, const unsigned char *random, uint64_t random_length,
	       struct outer *outer)
{
	used += label && length && random && random_length && outer;
}

static int act(const char *call, int number)
{
	static const char text[] = "EXPORTER_SECRETCLIENT_RANDOM";
	struct parts parts = { .secret = secret, .secret_length = number };
	struct outer outer = { .inner = &parts };

	if (!strcmp(call, "tell")) {
		tell(text, 15, random_bytes, 32, &outer);
	} else if (!strcmp(call, "tell-absent")) {
		madvise((void *)((uintptr_t)absent & -4096UL), 4096, MADV_DONTNEED);
		tell(absent, 23, random_bytes, 32, &outer);
	} else if (!strcmp(call, "tell-nowhere")) {
		tell((const char *)16, 15, random_bytes, 32, &outer);
	} else if (!strcmp(call, "tell-long-label")) {
		tell(text, 32, random_bytes, 32, &outer);
	} else if (!strcmp(call, "tell-short-random")) {
		tell(text, 15, random_bytes, 31, &outer);
	} else if (!strcmp(call, "tell-no-random")) {
		tell(text, 15, (const unsigned char *)16, 32, &outer);
	} else if (!strcmp(call, "tell-unreadable")) {
		parts.secret = (const unsigned char *)16;
		tell(text, 15, random_bytes, 32, &outer);
	} else if (!strcmp(call, "tell-astray")) {
		outer.inner = (struct parts *)16;
		tell(text, 15, random_bytes, 32, &outer);
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
	for (size_t i = 0; i < sizeof(secret); i++)
		secret[i] = 100 + i;
	memset(random_bytes, 7, sizeof(random_bytes));
	printf("%d\n", getpid());
	fflush(stdout);
	while (scanf("%31s %d", call, &number) == 2) {
		printf("%d\n", act(call, number));
		fflush(stdout);
	}
	return 0;
}
