/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program whose functions have the shapes that nss.bpf.c understands: one line of standard input, "CALL NUMBER", one
 * call or change, one line of standard output. Objects, keys and the connection are laid out as in NSS; see
 * test_nss_secrets.py.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CALL __attribute__((noinline, used, visibility("default")))
#define OBJECTS 64

struct object {
	void *next, *previous;
	uint64_t class, handle;
};

struct key {
	uint64_t type, object;
};

static struct object objects[OBJECTS];
static struct {
	void *fd, *ops;
	unsigned char random[32];
} connection;
static unsigned char bytes[256];
static unsigned length = 32;
static struct key key;
static volatile int used;

CALL int set_value(struct object *object, unsigned long type, const void *value, unsigned size)
{
	used += object && type && value && size;
	return 0;
}

CALL void tell(void *handle, const char *label, struct key *secret)
{
	used += handle && label && secret;
}

/* An object gets bytes that count up from its number, and its handle afterwards, as when NSS derives a key. */
static void *make(void *of)
{
	struct object *object = of;
	unsigned number = object - objects;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = number + i;
	object->handle = 0;
	set_value(object, 0x11, bytes, length);
	memset(bytes, 0, sizeof(bytes));
	object->handle = 1000 + number;
	return NULL;
}

static int act(const char *call, int number)
{
	struct object *object = &objects[number % OBJECTS];
	pthread_t thread;

	if (!strcmp(call, "random"))
		memset(connection.random, number, sizeof(connection.random));
	else if (!strcmp(call, "length"))
		length = number;
	else if (!strcmp(call, "make"))
		make(object);
	else if (!strcmp(call, "make_elsewhere"))
		return pthread_create(&thread, NULL, make, object) || pthread_join(thread, NULL);
	else if (!strcmp(call, "other_attribute"))
		set_value(object, 0x12, "not these bytes, which are another attribute", 32);
	else if (!strcmp(call, "no_bytes"))
		set_value(object, 0x11, NULL, 0);
	else if (!strcmp(call, "rename"))
		object->handle = 0;
	else if (!strcmp(call, "tell")) {
		key.object = number;
		tell(&connection, "CLIENT_RANDOM", &key);
	} else if (!strcmp(call, "tell_nothing"))
		tell(&connection, "CLIENT_RANDOM", NULL);
	else
		return -1;
	return 0;
}

int main(void)
{
	char call[32];
	int number;

	printf("%d\n", getpid());
	fflush(stdout);
	while (scanf("%31s %d", call, &number) == 2) {
		printf("%d\n", act(call, number));
		fflush(stdout);
	}
	return 0;
}
