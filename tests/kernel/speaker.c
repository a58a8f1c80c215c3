/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program whose functions have the shapes that plaintext.bpf.c understands, and that calls them when told to:
 * one line of standard input, "CALL LENGTH", one call, one line of standard output with what the call returned.
 * The bytes of every call count on from the call before: byte i of all is i % 251.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL __attribute__((noinline, used, visibility("default")))

static unsigned char *buffer;
static size_t filled; /* bytes of all calls so far */

static void fill(void *to, size_t length)
{
	unsigned char *bytes = to;

	for (size_t i = 0; i < length; i++)
		bytes[i] = (filled + i) % 251;
	filled += length;
}

CALL int plain_read(void *handle, void *to, int length)
{
	(void)handle;
	if (length > 0)
		fill(to, length);
	return length;
}

CALL int plain_write(void *handle, const void *from, int length)
{
	(void)handle;
	(void)from;
	return length;
}

CALL int pointed_write(void *handle, const void *from, size_t length, size_t *written)
{
	(void)handle;
	(void)from;
	*written = length;
	return length != 13; /* an unlucky number: the call fails */
}

CALL long send_file(void *handle, int fd, long offset, size_t length)
{
	(void)handle;
	(void)fd;
	(void)offset;
	return length;
}

CALL int set_descriptor(void *handle, int fd)
{
	return handle && fd >= 0;
}

CALL void end(void *handle)
{
	*(volatile char *)handle = 0;
}

/* What is built on another hooked call is to be shown once. */
CALL int outer_write(void *handle, const void *from, int length)
{
	int result = plain_write(handle, from, length);

	asm volatile("" ::: "memory");
	return result;
}

/* A call by a thread that has a name of its own. */
static void *write_elsewhere(void *length)
{
	pthread_setname_np(pthread_self(), "elsewhere");
	return (void *)(intptr_t)plain_write(&filled, buffer, *(long *)length);
}

int main(void)
{
	static char handle[8];
	char name[32];
	long length;

	buffer = malloc(64 << 20);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%d\n", getpid());
	while (scanf("%31s %ld", name, &length) == 2) {
		long result = 0;
		size_t count = 0;
		pthread_t other;
		void *returned;

		if (!strcmp(name, "read")) {
			result = plain_read(handle, buffer, length);
		} else if (!strcmp(name, "write")) {
			fill(buffer, length > 0 ? length : 0);
			result = plain_write(handle, buffer, length);
		} else if (!strcmp(name, "outer")) {
			fill(buffer, length);
			result = outer_write(handle, buffer, length);
		} else if (!strcmp(name, "pointed")) {
			fill(buffer, length);
			result = pointed_write(handle, buffer, length, &count);
		} else if (!strcmp(name, "file")) {
			result = send_file(handle, 0, 0, length);
		} else if (!strcmp(name, "unreadable")) {
			result = plain_write(handle, (void *)8, length);
		} else if (!strcmp(name, "descriptor")) {
			result = set_descriptor(handle, length);
		} else if (!strcmp(name, "elsewhere")) {
			fill(buffer, length);
			pthread_create(&other, NULL, write_elsewhere, &length);
			pthread_join(other, &returned);
			result = (intptr_t)returned;
		} else if (!strcmp(name, "end")) {
			end(handle);
		}
		printf("%ld\n", result);
	}
	return 0;
}
