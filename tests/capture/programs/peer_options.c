/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of tlspeer. What cannot work together is refused here, so that no test passes for the
 * wrong reason.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum with_value {
	OPTION_TOKEN = 256,
	OPTION_HOST,
	OPTION_PORT,
	OPTION_SIZES,
	OPTION_COUNT,
	OPTION_READ_SIZE,
	OPTION_CONNECTIONS,
	OPTION_THREADS,
	OPTION_FORK,
	OPTION_DEADLINE,
	OPTION_TLS,
	OPTION_BIO,
	OPTION_SENDFILE,
	OPTION_FIBERS,
	OPTION_DIE,
};

struct flag {
	const char *name;
	bool *value;
};

static const struct flag flags[] = {
	{"read-ex", &options.read_ex},
	{"write-ex", &options.write_ex},
	{"peek", &options.peek},
	{"early-data", &options.early_data},
	{"partial", &options.partial},
	{"moving", &options.moving},
	{"reuse-handle", &options.reuse_handle},
	{"clear", &options.clear},
	{"tls-in-tls", &options.tls_in_tls},
	{"wait-go", &options.wait_go},
	{"wait-connected", &options.wait_connected},
	{"ipv6", &options.ipv6},
	{"unix", &options.unix_pair},
	{"seccomp", &options.seccomp},
	{"calls", &options.show_calls},
	{"hold", &options.hold},
};

#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

static const struct option valued[] = {
	{"token", required_argument, NULL, OPTION_TOKEN},
	{"host", required_argument, NULL, OPTION_HOST},
	{"port", required_argument, NULL, OPTION_PORT},
	{"sizes", required_argument, NULL, OPTION_SIZES},
	{"count", required_argument, NULL, OPTION_COUNT},
	{"read-size", required_argument, NULL, OPTION_READ_SIZE},
	{"connections", required_argument, NULL, OPTION_CONNECTIONS},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"fork", required_argument, NULL, OPTION_FORK},
	{"deadline", required_argument, NULL, OPTION_DEADLINE},
	{"tls", required_argument, NULL, OPTION_TLS},
	{"bio", required_argument, NULL, OPTION_BIO},
	{"memory-bio", no_argument, NULL, 'm'},
	{"sendfile", required_argument, NULL, OPTION_SENDFILE},
	{"fibers", required_argument, NULL, OPTION_FIBERS},
	{"die-mid-call", required_argument, NULL, OPTION_DIE},
};

#define VALUED_COUNT (sizeof(valued) / sizeof(valued[0]))

static unsigned long number(const char *text, unsigned long least, unsigned long most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!isdigit((unsigned char)*text) || *end || value < least || value > most)
		fail("%s: not a number from %lu to %lu", text, least, most);
	return value;
}

/* The position of a word in a list that ends with NULL. */
static unsigned word(const char *text, const char *const *words)
{
	unsigned i;

	for (i = 0; words[i]; i++)
		if (!strcmp(text, words[i]))
			return i;
	fail("%s: no such choice", text);
}

static void read_sizes(char *list)
{
	char *rest = NULL, *piece;

	options.size_count = 0;
	for (piece = strtok_r(list, ",", &rest); piece; piece = strtok_r(NULL, ",", &rest)) {
		if (options.size_count == SIZES_MAXIMUM)
			fail("more than %d sizes", SIZES_MAXIMUM);
		options.sizes[options.size_count++] = number(piece, 1, 64u << 20);
	}
	if (!options.size_count)
		fail("--sizes names none");
}

static void read_token(const char *text)
{
	size_t length =
		strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

	if (!length || text[length] || length > 64)
		fail("--token takes 1 to 64 letters, digits, _ . -");
	options.token = text;
}

static void read_choice(int code, const char *value)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	if (code == OPTION_TLS)
		options.version = versions[word(value, (const char *const[]){"1.2", "1.3", NULL})];
	else if (code == OPTION_BIO)
		options.wiring = word(
			value, (const char *const[]){"fd", "socket", "custom", "memory", NULL});
	else if (code == OPTION_FIBERS)
		options.fibers = 1 + word(value, (const char *const[]){"nested-up", "nested-down",
								       "interleaved", NULL});
	else
		options.dying = 1 + word(value, (const char *const[]){"read", "write", NULL});
}

static void read_value(int code, char *value)
{
	switch (code) {
	case OPTION_TOKEN:
		read_token(value);
		break;
	case OPTION_HOST:
		options.host = value;
		break;
	case OPTION_PORT:
		options.port = number(value, 0, 65535);
		break;
	case OPTION_SIZES:
		read_sizes(value);
		break;
	case OPTION_COUNT:
		options.count = number(value, 1, 10000000);
		break;
	case OPTION_READ_SIZE:
		options.read_size = number(value, 1, 64u << 20);
		break;
	case OPTION_CONNECTIONS:
		options.connections = number(value, 1, CONNECTIONS_MAXIMUM);
		break;
	case OPTION_THREADS:
		options.threads = number(value, 1, TIDS_MAXIMUM);
		break;
	case OPTION_FORK:
		options.workers = number(value, 1, CONNECTIONS_MAXIMUM);
		break;
	case OPTION_DEADLINE:
		options.deadline = number(value, 1, 3600);
		break;
	case OPTION_SENDFILE:
		options.sendfile = value;
		break;
	case 'm':
		options.wiring = WIRING_MEMORY;
		break;
	default:
		read_choice(code, value);
	}
}

static void refuse(bool condition, const char *why)
{
	if (condition)
		fail("%s", why);
}

static void check(void)
{
	bool several = options.early_data || options.reuse_handle || options.clear;

	if (!options.connections)
		options.connections = several ? 2 : 1;
	if (options.early_data && !options.version)
		options.version = TLS1_3_VERSION;
	if (options.fibers)
		options.wiring = WIRING_CUSTOM;
	refuse(options.command == COMMAND_CLIENT && !options.port, "client needs --port");
	refuse(options.command == COMMAND_CLIENT && options.workers, "--fork is for servers");
	refuse(several && options.connections < 2, "this needs --connections 2 or more");
	refuse(options.early_data && options.clear, "SSL_clear drops what early data needs");
	refuse(options.early_data && options.version != TLS1_3_VERSION, "early data is TLS 1.3");
	refuse(options.seccomp && (options.connections > 1 || options.sendfile || options.dying ||
				   options.fibers),
	       "--seccomp allows one plain connection");
	refuse(options.unix_pair &&
		       (options.command != COMMAND_PAIR || options.workers || options.fibers),
	       "--unix is for pair, without --fork and --fibers");
	refuse(options.fibers &&
		       (options.command != COMMAND_PAIR || options.workers || options.tls_in_tls ||
			options.threads > 1 || options.partial || options.moving),
	       "--fibers is for pair, on one thread, without retries");
	refuse(options.tls_in_tls && (options.partial || options.moving),
	       "--tls-in-tls carries blocking calls only");
	refuse(options.hold && options.command == COMMAND_PAIR, "--hold is for server or client");
	refuse(options.workers && options.wait_connected, "--fork waits at the start only");
	refuse(options.dying && options.wiring != WIRING_FD,
	       "--die-mid-call looks for a thread in read or write");
	refuse(options.dying &&
		       (options.partial || options.moving || options.tls_in_tls || options.workers),
	       "--die-mid-call needs a plain blocking connection");
}

void options_read(int count, char **words)
{
	struct option table[FLAG_COUNT + VALUED_COUNT + 1] = {0};
	unsigned i;
	int code;

	if (count < 2)
		fail("usage: %s pair|server|client [options]; see the head of the source",
		     words[0]);
	options.command = word(words[1], (const char *const[]){"pair", "server", "client", NULL});
	for (i = 0; i < FLAG_COUNT; i++)
		table[i] = (struct option){flags[i].name, no_argument, NULL, i};
	memcpy(table + FLAG_COUNT, valued, sizeof(valued));
	optind = 2;
	while ((code = getopt_long(count, words, "", table, NULL)) != -1) {
		if (code == '?')
			exit(2);
		if (code < (int)FLAG_COUNT)
			*flags[code].value = true;
		else
			read_value(code, optarg);
	}
	refuse(optind != count, "too many words");
	check();
}
