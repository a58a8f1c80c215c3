/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One JSON object a line on standard output, one write(2) a line, so that lines of threads and
 * forked workers never mix. All text that goes in is either written here or was checked when
 * options were read; nothing needs escaping.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void put_line(const char *format, va_list arguments)
{
	char line[8192];
	int length = vsnprintf(line, sizeof(line) - 1, format, arguments);

	if (length < 0 || (size_t)length >= sizeof(line) - 1)
		abort();
	line[length++] = '\n';
	if (write(STDOUT_FILENO, line, length) != length)
		_exit(3);
}

void report(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	put_line(format, arguments);
	va_end(arguments);
}

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	ERR_print_errors_fp(stderr);
	exit(2);
}

pid_t thread_id(void)
{
	return syscall(SYS_gettid);
}

const char *side_name(enum side side)
{
	return side == SIDE_CLIENT ? "client" : "server";
}

void tally_open(struct tally *tally)
{
	memset(tally, 0, sizeof(*tally));
	tally->digest = EVP_MD_CTX_new();
	if (!tally->digest || !EVP_DigestInit_ex(tally->digest, EVP_sha256(), NULL))
		fail("no SHA-256");
}

void tally_close(struct tally *tally)
{
	EVP_MD_CTX_free(tally->digest);
	tally->digest = NULL;
}

void tally_add(struct tally *tally, const void *bytes, size_t length)
{
	pid_t tid = thread_id();
	unsigned i;

	EVP_DigestUpdate(tally->digest, bytes, length);
	tally->bytes += length;
	tally->calls++;
	for (i = 0; i < tally->tid_count; i++)
		if (tally->tids[i] == tid)
			return;
	if (i < TIDS_MAXIMUM)
		tally->tids[tally->tid_count++] = tid;
}

static void tally_text(const struct tally *tally, char *text, size_t room)
{
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_length = 0;
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "", tids[TIDS_MAXIMUM * 12] = "";
	size_t used = 0;
	unsigned i;

	EVP_MD_CTX_copy_ex(copy, tally->digest);
	EVP_DigestFinal_ex(copy, digest, &digest_length);
	EVP_MD_CTX_free(copy);
	for (i = 0; i < digest_length; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
	for (i = 0; i < tally->tid_count; i++)
		used += sprintf(tids + used, "%s%d", i ? "," : "", tally->tids[i]);
	snprintf(text, room,
		 "{\"calls\":%u,\"retries\":%u,\"bytes\":%llu,\"sha256\":\"%s\",\"tids\":[%s]}",
		 tally->calls, tally->retries, (unsigned long long)tally->bytes, hex, tids);
}

static void address_text(int fd, bool remote, char *text, size_t room)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	char host[INET6_ADDRSTRLEN] = "";
	int got = remote ? getpeername(fd, (struct sockaddr *)&address, &length)
			 : getsockname(fd, (struct sockaddr *)&address, &length);

	snprintf(text, room, "null");
	if (got)
		return;
	if (address.ss_family == AF_INET) {
		struct sockaddr_in *inet = (struct sockaddr_in *)&address;

		inet_ntop(AF_INET, &inet->sin_addr, host, sizeof(host));
		snprintf(text, room, "[\"%s\",%u]", host, ntohs(inet->sin_port));
	} else if (address.ss_family == AF_INET6) {
		struct sockaddr_in6 *inet6 = (struct sockaddr_in6 *)&address;

		inet_ntop(AF_INET6, &inet6->sin6_addr, host, sizeof(host));
		snprintf(text, room, "[\"%s\",%u]", host, ntohs(inet6->sin6_port));
	}
}

static const char *layer_name(const struct conversation *it)
{
	if (it->below)
		return "inner";
	return options.tls_in_tls ? "outer" : "only";
}

void report_call(const struct conversation *it, const char *function, size_t length)
{
	if (options.show_calls)
		report("{\"event\":\"call\",\"side\":\"%s\",\"layer\":\"%s\",\"ssl\":\"%p\","
		       "\"tid\":%d,"
		       "\"function\":\"%s\",\"length\":%zu}",
		       side_name(it->side), layer_name(it), (void *)it->ssl, thread_id(), function,
		       length);
}

void report_connected(const struct conversation *it)
{
	char local[96], remote[96];

	address_text(it->fd, false, local, sizeof(local));
	address_text(it->fd, true, remote, sizeof(remote));
	report("{\"event\":\"connected\",\"side\":\"%s\",\"layer\":\"%s\",\"generation\":%u,"
	       "\"pid\":%d,\"tid\":%d,"
	       "\"ssl\":\"%p\",\"fd\":%d,\"version\":\"%s\",\"cipher\":\"%s\",\"local\":%s,"
	       "\"remote\":%s}",
	       side_name(it->side), layer_name(it), it->generation, getpid(), thread_id(),
	       (void *)it->ssl, it->fd, SSL_get_version(it->ssl), SSL_get_cipher(it->ssl), local,
	       remote);
}

void report_done(const struct conversation *it)
{
	char local[96], remote[96], texts[4][1200];

	address_text(it->fd, false, local, sizeof(local));
	address_text(it->fd, true, remote, sizeof(remote));
	tally_text(&it->read, texts[0], sizeof(texts[0]));
	tally_text(&it->write, texts[1], sizeof(texts[1]));
	tally_text(&it->early_read, texts[2], sizeof(texts[2]));
	tally_text(&it->early_write, texts[3], sizeof(texts[3]));
	report("{\"event\":\"done\",\"side\":\"%s\",\"layer\":\"%s\",\"generation\":%u,\"pid\":%d,"
	       "\"ssl\":\"%p\","
	       "\"local\":%s,\"remote\":%s,\"read\":%s,\"write\":%s,\"early_read\":%s,\"early_"
	       "write\":%s,"
	       "\"peeks\":%u,\"verified\":%s}",
	       side_name(it->side), layer_name(it), it->generation, getpid(), (void *)it->ssl,
	       local, remote, texts[0], texts[1], texts[2], texts[3], it->peeks,
	       it->wrong ? "false" : "true");
}

void report_file(const struct conversation *it, const char *function, const char *reason,
		 const struct tally *moved)
{
	char text[1200];

	tally_text(moved, text, sizeof(text));
	report("{\"event\":\"sendfile\",\"side\":\"%s\",\"pid\":%d,\"ssl\":\"%p\",\"ktls\":%s,"
	       "\"reason\":\"%s\","
	       "\"function\":\"%s\",\"moved\":%s}",
	       side_name(it->side), getpid(), (void *)it->ssl, *reason ? "false" : "true", reason,
	       function, text);
}
