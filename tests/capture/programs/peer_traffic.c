/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payload and every TLS call that moves it.
 *
 * Message number N of one direction repeats "TOKEN:L N " and is cut at its size; L is c for what
 * the client says, s for what the server says, e for the client's early data. Any piece of any
 * message can so be recognised and both ends check every byte without knowing more than the
 * options.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EARLY_MESSAGE_MAXIMUM 4096
#define SLOW_READER_NS 150000000

static size_t message_size(char label, unsigned sequence)
{
	size_t size = options.sizes[sequence % options.size_count];

	return label == 'e' && size > EARLY_MESSAGE_MAXIMUM ? EARLY_MESSAGE_MAXIMUM : size;
}

unsigned message_count(void)
{
	return options.size_count * options.count;
}

void fill_payload(char label, unsigned sequence, size_t offset, unsigned char *into, size_t length)
{
	char pattern[128];
	size_t period = snprintf(pattern, sizeof(pattern), "%s:%c %u ", options.token, label,
				 sequence),
	       i;

	for (i = 0; i < length; i++)
		into[i] = pattern[(offset + i) % period];
}

/* True when these bytes are what comes next at the cursor, which moves on. */
static bool payload_follows(struct cursor *at, char label, const unsigned char *bytes,
			    size_t length)
{
	unsigned char expected[4096];
	size_t piece;

	while (length) {
		piece = message_size(label, at->sequence) - at->offset;
		if (piece > length)
			piece = length;
		if (piece > sizeof(expected))
			piece = sizeof(expected);
		fill_payload(label, at->sequence, at->offset, expected, piece);
		if (memcmp(expected, bytes, piece))
			return false;
		bytes += piece;
		length -= piece;
		at->offset += piece;
		if (at->offset == message_size(label, at->sequence)) {
			at->sequence++;
			at->offset = 0;
		}
	}
	return true;
}

void conversation_open(struct conversation *it, enum side side, unsigned generation, int fd,
		       SSL *ssl)
{
	memset(it, 0, sizeof(*it));
	it->side = side;
	it->generation = generation;
	it->fd = fd;
	it->ssl = ssl;
	tally_open(&it->read);
	tally_open(&it->write);
	tally_open(&it->early_read);
	tally_open(&it->early_write);
	if (options.partial || options.moving)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (side == SIDE_CLIENT)
		SSL_set_connect_state(ssl);
	else
		SSL_set_accept_state(ssl);
}

void conversation_close(struct conversation *it)
{
	tally_close(&it->read);
	tally_close(&it->write);
	tally_close(&it->early_read);
	tally_close(&it->early_write);
}

static bool complain(struct conversation *it, const char *call)
{
	it->wrong = true;
	fprintf(stderr, "%s: %s failed, errno %d\n", side_name(it->side), call, errno);
	ERR_print_errors_fp(stderr);
	return false;
}

bool handshake(struct conversation *it)
{
	int result;

	do
		result = SSL_do_handshake(it->ssl);
	while (link_settle(it, result));
	return result == 1 ? true : complain(it, "SSL_do_handshake");
}

/* One call. False: it moved nothing, and link_settle says whether it is to be made again. */
static int call_write(struct conversation *it, const void *bytes, size_t length, size_t *moved)
{
	int result;

	if (options.write_ex) {
		result = SSL_write_ex(it->ssl, bytes, length, moved);
	} else {
		result = SSL_write(it->ssl, bytes, length);
		*moved = result > 0 ? result : 0;
	}
	if (result > 0) {
		tally_add(&it->write, bytes, *moved);
		report_call(it, options.write_ex ? "SSL_write_ex" : "SSL_write", *moved);
	}
	return result;
}

static int call_read(struct conversation *it, void *bytes, size_t room, size_t *moved)
{
	int result;

	if (options.read_ex) {
		result = SSL_read_ex(it->ssl, bytes, room, moved);
	} else {
		result = SSL_read(it->ssl, bytes, room);
		*moved = result > 0 ? result : 0;
	}
	if (result > 0) {
		tally_add(&it->read, bytes, *moved);
		report_call(it, options.read_ex ? "SSL_read_ex" : "SSL_read", *moved);
	}
	return result;
}

bool carry_write(struct conversation *it, const void *bytes, size_t length, size_t *moved)
{
	return call_write(it, bytes, length, moved) > 0;
}

bool carry_read(struct conversation *it, void *bytes, size_t room, size_t *moved)
{
	return call_read(it, bytes, room, moved) > 0;
}

/* A retry from another address, with the old place overwritten: what a program with growing buffers
 * does. */
static unsigned char *buffer_moved(unsigned char *old, size_t size)
{
	unsigned char *moved = malloc(size);

	memcpy(moved, old, size);
	memset(old, 'X', size);
	free(old);
	return moved;
}

/* Write the next message whole. False: there is none left, or it failed. */
bool write_step(struct conversation *it)
{
	char label = it->side == SIDE_CLIENT ? 'c' : 's';
	size_t size, offset = 0, moved;
	unsigned char *buffer;
	int result;

	if (it->writing == message_count() || it->wrong)
		return false;
	size = message_size(label, it->writing);
	buffer = malloc(size);
	fill_payload(label, it->writing, 0, buffer, size);
	while (offset < size) {
		result = call_write(it, buffer + offset, size - offset, &moved);
		if (link_settle(it, result)) {
			it->write.retries++;
			if (options.moving)
				buffer = buffer_moved(buffer, size);
		} else if (result <= 0) {
			free(buffer);
			return complain(it, "write");
		} else {
			offset += moved;
		}
	}
	free(buffer);
	it->writing++;
	return true;
}

static void be_slow(void)
{
	struct timespec pause = {.tv_nsec = SLOW_READER_NS};

	nanosleep(&pause, NULL);
}

static bool peek(struct conversation *it, unsigned char *into, size_t room, size_t *peeked)
{
	int result;

	do {
		if (options.read_ex) {
			result = SSL_peek_ex(it->ssl, into, room, peeked);
		} else {
			result = SSL_peek(it->ssl, into, room);
			*peeked = result > 0 ? result : 0;
		}
	} while (link_settle(it, result));
	it->peeks++;
	return result > 0;
}

/* One read that moves something. False: all has been read, or it failed. */
bool read_step(struct conversation *it)
{
	char label = it->side == SIDE_CLIENT ? 's' : 'c';
	unsigned char *buffer, *seen;
	size_t moved = 0, peeked = 0;
	int result;
	bool good = true;

	if (it->reading.sequence == message_count() || it->wrong)
		return false;
	if (!it->read.calls && (options.partial || options.moving))
		be_slow();
	buffer = malloc(options.read_size);
	seen = malloc(options.read_size);
	if (options.peek)
		good = peek(it, seen, options.read_size, &peeked);
	do {
		result = call_read(it, buffer, options.read_size, &moved);
		if (!link_settle(it, result))
			break;
		it->read.retries++;
	} while (true);
	good = good && result > 0 && payload_follows(&it->reading, label, buffer, moved) &&
	       memcmp(buffer, seen, peeked < moved ? peeked : moved) == 0;
	free(buffer);
	free(seen);
	return good ? true : complain(it, "read");
}

static bool early_write(struct conversation *it)
{
	unsigned char buffer[EARLY_MESSAGE_MAXIMUM];
	unsigned sequence;
	size_t size, moved;
	int result;

	for (sequence = 0; sequence < message_count(); sequence++) {
		size = message_size('e', sequence);
		fill_payload('e', sequence, 0, buffer, size);
		do
			result = SSL_write_early_data(it->ssl, buffer, size, &moved);
		while (link_settle(it, result));
		if (result != 1 || moved != size)
			return complain(it, "SSL_write_early_data");
		tally_add(&it->early_write, buffer, moved);
		report_call(it, "SSL_write_early_data", moved);
	}
	return true;
}

static bool early_read(struct conversation *it)
{
	unsigned char buffer[EARLY_MESSAGE_MAXIMUM];
	struct cursor at = {0};
	size_t moved;
	int result;

	for (;;) {
		moved = 0;
		do
			result = SSL_read_early_data(it->ssl, buffer, sizeof(buffer), &moved);
		while (result == SSL_READ_EARLY_DATA_ERROR && link_settle(it, 0));
		if (result == SSL_READ_EARLY_DATA_ERROR)
			return complain(it, "SSL_read_early_data");
		if (moved) {
			tally_add(&it->early_read, buffer, moved);
			report_call(it, "SSL_read_early_data", moved);
			if (!payload_follows(&at, 'e', buffer, moved))
				return complain(it, "early payload");
		}
		if (result == SSL_READ_EARLY_DATA_FINISH)
			return true;
	}
}

/* Early data up to the point where the ordinary handshake goes on. */
bool early_exchange(struct conversation *it)
{
	return it->side == SIDE_CLIENT ? early_write(it) : early_read(it);
}

static unsigned char *file_content(size_t *size)
{
	struct stat status;
	unsigned char *content;
	int fd = open(options.sendfile, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status))
		fail("%s: %s", options.sendfile, strerror(errno));
	*size = status.st_size;
	content = malloc(*size + 1);
	if (pread(fd, content, *size, 0) != (ssize_t)*size)
		fail("%s: short", options.sendfile);
	close(fd);
	return content;
}

/* By SSL_sendfile where the kernel encrypts; otherwise by the ordinary call, and the report says
 * which and why. */
bool write_file(struct conversation *it)
{
	const char *reason;
	bool ktls = link_ktls_sends(it, &reason);
	struct tally moved;
	size_t size, offset = 0;
	unsigned char *content = file_content(&size);
	int fd = open(options.sendfile, O_RDONLY | O_CLOEXEC);
	ssize_t sent = 1;

	tally_open(&moved);
	while (offset < size && sent > 0) {
		do
			sent = ktls ? SSL_sendfile(it->ssl, fd, offset, size - offset, 0)
				    : SSL_write(it->ssl, content + offset, size - offset);
		while (link_settle(it, sent));
		if (sent > 0) {
			tally_add(&moved, content + offset, sent);
			offset += sent;
		}
	}
	report_file(it, ktls ? "SSL_sendfile" : "SSL_write", reason, &moved);
	tally_close(&moved);
	close(fd);
	free(content);
	return offset == size ? true : complain(it, "sendfile");
}

bool read_file(struct conversation *it)
{
	size_t size, offset = 0;
	unsigned char *content = file_content(&size), *buffer = malloc(size + 1);
	struct tally moved;
	bool same;
	int received = 1;

	tally_open(&moved);
	while (offset < size && received > 0) {
		do
			received = SSL_read(it->ssl, buffer + offset, size - offset);
		while (link_settle(it, received));
		if (received > 0) {
			tally_add(&moved, buffer + offset, received);
			offset += received;
		}
	}
	same = offset == size && memcmp(content, buffer, size) == 0;
	report_file(it, "SSL_read", "this side reads", &moved);
	tally_close(&moved);
	free(content);
	free(buffer);
	return same ? true : complain(it, "reading the file");
}
