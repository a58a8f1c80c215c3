/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of tlspeer share.
 *
 *   tlspeer.c        the commands pair, server and client, and the order of things in one
 * connection peer_options.c   options, and which of them go together peer_report.c    JSON lines
 * and running digests peer_link.c      certificate, contexts, sockets and BIOs: how an SSL reaches
 * its peer peer_traffic.c   the payload and every call that moves it peer_scenes.c    what happens
 * around the calls: threads, fibers, sudden death, a seccomp filter
 *
 * Invariant: each byte that a counted call moved is in a tally, in the order in which the calls
 * returned. A call that failed or has to be repeated is in no tally.
 */
#ifndef PEER_H
#define PEER_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define SIZES_MAXIMUM 64
#define TIDS_MAXIMUM 64
#define CONNECTIONS_MAXIMUM 64
#define DYING_BYTES (8u << 20) /* more than any socket buffer takes, so that the write blocks */

enum command { COMMAND_PAIR, COMMAND_SERVER, COMMAND_CLIENT };
enum side { SIDE_CLIENT, SIDE_SERVER };
enum wiring { WIRING_FD, WIRING_SOCKET, WIRING_CUSTOM, WIRING_MEMORY };
enum fibers { FIBERS_NONE, FIBERS_NESTED_UP, FIBERS_NESTED_DOWN, FIBERS_INTERLEAVED };
enum dying { DYING_NEVER, DYING_IN_READ, DYING_IN_WRITE };

struct options {
	enum command command;
	const char *token;
	const char *host; /* client only; NULL means loopback */
	const char *sendfile;
	size_t sizes[SIZES_MAXIMUM];
	unsigned size_count;
	unsigned count; /* how many times the list of sizes is sent */
	size_t read_size;
	unsigned connections; /* one after another on each server worker */
	unsigned threads;
	unsigned workers;  /* 0: no fork */
	unsigned deadline; /* seconds until SIGALRM ends a program that hangs */
	uint16_t port;
	int version; /* TLS1_2_VERSION, TLS1_3_VERSION or 0 for the library's choice */
	enum wiring wiring;
	enum fibers fibers;
	enum dying dying;
	bool read_ex, write_ex, peek, early_data, partial, moving, reuse_handle, clear;
	bool tls_in_tls, wait_go, wait_connected, ipv6, unix_pair, seccomp, show_calls, hold;
};

extern struct options options;

/* What one direction of a connection has moved. */
struct tally {
	EVP_MD_CTX *digest;
	uint64_t bytes;
	unsigned calls;
	unsigned retries;
	unsigned tid_count;
	pid_t tids[TIDS_MAXIMUM];
};

/* Where in the stream of messages the reader or the writer stands. */
struct cursor {
	unsigned sequence;
	size_t offset;
};

struct fiber;

struct conversation {
	enum side side;
	unsigned generation; /* 0 for the first connection of its side */
	int fd;
	SSL *ssl;
	struct conversation *below; /* the connection that carries this one, in --tls-in-tls */
	struct fiber *fiber;
	struct tally read, write, early_read, early_write;
	struct cursor reading;
	unsigned writing;
	unsigned peeks;
	bool wrong; /* a byte was not what the payload says, or a call failed */
};

/* How connections are made: a listening socket, or socket pairs made beforehand. */
struct route {
	int listener;
	struct sockaddr_storage address;
	socklen_t address_length;
	int pairs[CONNECTIONS_MAXIMUM][2];
};

/* peer_options.c */
void options_read(int count, char **words);

/* peer_report.c */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
__attribute__((format(printf, 1, 2))) void report(const char *format, ...);
pid_t thread_id(void);
void tally_open(struct tally *tally);
void tally_close(struct tally *tally);
void tally_add(struct tally *tally, const void *bytes, size_t length);
void report_call(const struct conversation *it, const char *function, size_t length);
void report_connected(const struct conversation *it);
void report_done(const struct conversation *it);
void report_file(const struct conversation *it, const char *function, const char *reason,
		 const struct tally *moved);
const char *side_name(enum side side);

/* peer_link.c */
SSL_CTX *context_new(enum side side);
void route_open(struct route *route);
void route_close(struct route *route);
int route_connect(const struct route *route, unsigned index);
int route_accept(const struct route *route, unsigned index);
void link_wire(struct conversation *it);
bool link_settle(struct conversation *it, int result);
void link_await_hangup(int fd);
bool link_ktls_sends(struct conversation *it, const char **reason);

/* peer_traffic.c */
void conversation_open(struct conversation *it, enum side side, unsigned generation, int fd,
		       SSL *ssl);
void conversation_close(struct conversation *it);
unsigned message_count(void);
bool handshake(struct conversation *it);
bool early_exchange(struct conversation *it);
bool write_step(struct conversation *it);
bool read_step(struct conversation *it);
bool carry_read(struct conversation *it, void *bytes, size_t room, size_t *moved);
bool carry_write(struct conversation *it, const void *bytes, size_t length, size_t *moved);
bool write_file(struct conversation *it);
bool read_file(struct conversation *it);
void fill_payload(char label, unsigned sequence, size_t offset, unsigned char *into, size_t length);

/* peer_scenes.c */
bool repeat_in_turn(struct conversation *it, bool (*step)(struct conversation *));
bool exchange(struct conversation *it);
void exchange_in_fibers(struct conversation *first, struct conversation *second);
void fiber_yield(struct conversation *it);
void die_mid_call(struct conversation *it);
void confine(void);

#endif
