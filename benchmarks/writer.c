/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TLS writer that writes as fast as it can, or at a given rate, and knows what it wrote.
 *
 *   gcc -O2 -pthread -o writer writer.c -lssl -lcrypto
 *
 * Both ends of the TLS 1.3 handshake are made here over memory; afterwards the writing end gets a
 * BIO that discards ("--sink discard", the default: what is measured is the call and nothing else)
 * or a loopback socket whose other end a child process empties without decrypting ("socket").
 *
 * Every payload is a decimal sequence number of 16 digits and then letters that repeat, so loss and
 * order can be seen in any output that shows the payload. Nothing is written after the handshake
 * but through the function that is measured.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <getopt.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEQUENCE_DIGITS 16
#define NS 1000000000ull

static struct {
	size_t size;
	uint64_t calls; /* 0: until the time is over */
	double seconds;
	double rate; /* calls a second; 0: no limit */
	bool extended, to_socket, wait_go;
	const char *pid_file;
} wanted = {.size = 100, .seconds = 2};

__attribute__((noreturn)) static void fail(const char *what)
{
	fprintf(stderr, "writer: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS + now.tv_nsec;
}

static SSL_CTX *server_context(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();

	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
	X509_set_pubkey(certificate, key);
	if (!X509_sign(certificate, key, EVP_sha256()) ||
	    SSL_CTX_use_certificate(context, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey(context, key) != 1)
		fail("no certificate");
	SSL_CTX_set_num_tickets(context, 0);
	X509_free(certificate);
	EVP_PKEY_free(key);
	return context;
}

/* The client end of a finished handshake. Its peer is not needed any more: nothing is ever read. */
static SSL *connected(void)
{
	SSL_CTX *contexts[2] = {SSL_CTX_new(TLS_client_method()), server_context()};
	SSL *client = SSL_new(contexts[0]), *server = SSL_new(contexts[1]);
	BIO *ends[2];
	int round;

	SSL_set_min_proto_version(client, TLS1_3_VERSION);
	BIO_new_bio_pair(&ends[0], 1 << 16, &ends[1], 1 << 16);
	SSL_set_bio(client, ends[0], ends[0]);
	SSL_set_bio(server, ends[1], ends[1]);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	for (round = 0; round < 10; round++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	if (!SSL_is_init_finished(client) || !SSL_is_init_finished(server))
		fail("the handshake did not finish");
	SSL_set_bio(client, BIO_new(BIO_s_null()), NULL);
	SSL_free(server);
	return client;
}

static int discard_write(BIO *bio, const char *bytes, int length)
{
	(void)bytes;
	BIO_clear_retry_flags(bio);
	return length;
}

static long discard_control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static BIO *discarding_bio(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "discard");
	BIO *bio;

	BIO_meth_set_write(method, discard_write);
	BIO_meth_set_ctrl(method, discard_control);
	bio = BIO_new(method);
	BIO_set_init(bio, 1);
	return bio;
}

/* A child that empties the socket until its end, so that the writer is alone in its process. */
static int socket_to_reader(pid_t *reader)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	static char bytes[1 << 18];

	if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&address, &length))
		fail("no listening socket");
	*reader = fork();
	if (!*reader) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd);
		fd = accept(listener, NULL, NULL);
		while (recv(fd, bytes, sizeof(bytes), 0) > 0)
			;
		_exit(0);
	}
	if (connect(fd, (struct sockaddr *)&address, length))
		fail("no connection");
	close(listener);
	return fd;
}

static void put_sequence(char *into, uint64_t sequence)
{
	int i;

	for (i = SEQUENCE_DIGITS - 1; i >= 0; i--, sequence /= 10)
		into[i] = '0' + sequence % 10;
}

static char *payload(void)
{
	char *bytes = malloc(wanted.size);
	size_t i;

	for (i = 0; i < wanted.size; i++)
		bytes[i] = 'a' + i % 26;
	return bytes;
}

static bool write_once(SSL *ssl, const char *bytes)
{
	size_t moved = 0;

	if (wanted.extended)
		return SSL_write_ex(ssl, bytes, wanted.size, &moved) == 1 && moved == wanted.size;
	return SSL_write(ssl, bytes, wanted.size) == (int)wanted.size;
}

/* Sleep up to the moment when call number "sequence" is due. */
static void keep_pace(uint64_t start, uint64_t sequence)
{
	uint64_t due = start + (uint64_t)(sequence * (NS / wanted.rate));
	struct timespec until = {.tv_sec = due / NS, .tv_nsec = due % NS};

	if (due > now_ns())
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static double seconds_of(struct timeval time)
{
	return time.tv_sec + time.tv_usec / 1e6;
}

static void write_all(SSL *ssl)
{
	char *bytes = payload();
	struct rusage before, after;
	uint64_t start, end, deadline, sequence;

	getrusage(RUSAGE_SELF, &before);
	start = end = now_ns();
	deadline = start + (uint64_t)(wanted.seconds * NS);
	for (sequence = 0; wanted.calls ? sequence < wanted.calls : end < deadline; sequence++) {
		if (wanted.rate > 0)
			keep_pace(start, sequence);
		put_sequence(bytes, sequence);
		if (!write_once(ssl, bytes))
			fail("a write failed");
		end = now_ns();
	}
	getrusage(RUSAGE_SELF, &after);
	printf("{\"pid\":%d,\"function\":\"%s\",\"size\":%zu,\"calls\":%llu,\"bytes\":%llu,"
	       "\"seconds\":%.6f,\"cpu_user\":%.6f,\"cpu_system\":%.6f,\"first\":0,\"last\":%lld}"
	       "\n",
	       getpid(), wanted.extended ? "SSL_write_ex" : "SSL_write", wanted.size,
	       (unsigned long long)sequence, (unsigned long long)sequence * wanted.size,
	       (end - start) / 1e9, seconds_of(after.ru_utime) - seconds_of(before.ru_utime),
	       seconds_of(after.ru_stime) - seconds_of(before.ru_stime), (long long)sequence - 1);
	free(bytes);
}

static double number(const char *text, double least)
{
	char *end;
	double value = strtod(text, &end);

	if (!isdigit((unsigned char)*text) || *end || value < least)
		fail("an option has no sensible number");
	return value;
}

static void options_read(int count, char **words)
{
	static const struct option table[] = {
		{"size", required_argument, NULL, 's'},
		{"calls", required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 't'},
		{"rate", required_argument, NULL, 'r'},
		{"sink", required_argument, NULL, 'o'},
		{"pid-file", required_argument, NULL, 'p'},
		{"write-ex", no_argument, NULL, 'x'},
		{"wait-go", no_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	int code;

	while ((code = getopt_long(count, words, "", table, NULL)) != -1) {
		if (code == 's')
			wanted.size = number(optarg, SEQUENCE_DIGITS);
		else if (code == 'c')
			wanted.calls = number(optarg, 1);
		else if (code == 't')
			wanted.seconds = number(optarg, 0);
		else if (code == 'r')
			wanted.rate = number(optarg, 0);
		else if (code == 'o')
			wanted.to_socket = !strcmp(optarg, "socket");
		else if (code == 'p')
			wanted.pid_file = optarg;
		else if (code == 'x')
			wanted.extended = true;
		else if (code == 'w')
			wanted.wait_go = true;
		else
			fail("usage: writer [--size S] [--calls N | --seconds T] [--rate R] "
			     "[--write-ex]"
			     " [--sink discard|socket] [--pid-file FILE] [--wait-go]");
	}
}

static void announce(void)
{
	FILE *file;
	int letter;

	printf("{\"ready\":true,\"pid\":%d}\n", getpid());
	fflush(stdout);
	if (wanted.pid_file) {
		file = fopen(wanted.pid_file, "w");
		if (!file)
			fail("the pid file cannot be written");
		fprintf(file, "%d\n", getpid());
		fclose(file);
	}
	while (wanted.wait_go && (letter = getchar()) != '\n' && letter != EOF)
		;
}

int main(int count, char **words)
{
	pid_t reader = 0;
	int fd = -1;
	SSL *ssl;

	options_read(count, words);
	signal(SIGPIPE, SIG_IGN);
	ssl = connected();
	if (wanted.to_socket) {
		fd = socket_to_reader(&reader);
		if (SSL_set_fd(ssl, fd) != 1)
			fail("SSL_set_fd");
	} else {
		SSL_set0_wbio(ssl, discarding_bio());
	}
	announce();
	write_all(ssl);
	if (fd >= 0) {
		close(fd);
		waitpid(reader, NULL, 0);
	}
	return 0;
}
