/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificate, contexts, sockets and BIOs: how an SSL object reaches its peer.
 *
 * Four wirings are in use in the wild and differ in what a tracer can see: SSL_set_fd, SSL_set_bio
 * with a socket BIO, a BIO method of the program's own (no descriptor is known to the library), and
 * memory BIOs which the program pumps to its socket itself, after the TLS call has returned.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define SMALL_SOCKET_BUFFER 4096

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *custom_method;

static void certificate_use(SSL_CTX *context)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_NAME *name;

	if (!key || !certificate)
		fail("no key");
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
	X509_set_pubkey(certificate, key);
	name = X509_get_subject_name(certificate);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1,
				   -1, 0);
	X509_set_issuer_name(certificate, name);
	if (!X509_sign(certificate, key, EVP_sha256()) ||
	    SSL_CTX_use_certificate(context, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey(context, key) != 1)
		fail("no certificate");
	X509_free(certificate);
	EVP_PKEY_free(key);
}

SSL_CTX *context_new(enum side side)
{
	SSL_CTX *context =
		SSL_CTX_new(side == SIDE_CLIENT ? TLS_client_method() : TLS_server_method());
	long mode = 0;

	if (!context)
		fail("no context");
	if (side == SIDE_SERVER) {
		certificate_use(context);
		SSL_CTX_set_session_id_context(context, (const unsigned char *)"peer", 4);
	}
	if (options.version) {
		SSL_CTX_set_min_proto_version(context, options.version);
		SSL_CTX_set_max_proto_version(context, options.version);
	}
	if (options.early_data) {
		SSL_CTX_set_max_early_data(context, 1u << 20);
		SSL_CTX_set_recv_max_early_data(context, 1u << 20);
	}
	if (options.partial)
		mode |= SSL_MODE_ENABLE_PARTIAL_WRITE;
	if (options.moving)
		mode |= SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER;
	SSL_CTX_set_mode(context, mode);
#ifdef SSL_OP_ENABLE_KTLS
	if (options.sendfile)
		SSL_CTX_set_options(context, SSL_OP_ENABLE_KTLS);
#endif
	return context;
}

static bool small_buffers(void)
{
	return options.partial || options.moving;
}

static void shrink_buffers(int fd)
{
	int size = SMALL_SOCKET_BUFFER;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static void route_aim(struct route *route)
{
	struct sockaddr_in *inet = (struct sockaddr_in *)&route->address;
	struct sockaddr_in6 *inet6 = (struct sockaddr_in6 *)&route->address;
	const char *host = options.host;

	memset(&route->address, 0, sizeof(route->address));
	if (options.ipv6) {
		inet6->sin6_family = AF_INET6;
		inet6->sin6_port = htons(options.port);
		route->address_length = sizeof(*inet6);
		if (inet_pton(AF_INET6, host ? host : "::1", &inet6->sin6_addr) != 1)
			fail("%s is no IPv6 address", host);
		return;
	}
	inet->sin_family = AF_INET;
	inet->sin_port = htons(options.port);
	route->address_length = sizeof(*inet);
	if (inet_pton(AF_INET, host ? host : "127.0.0.1", &inet->sin_addr) != 1)
		fail("%s is no IPv4 address", host);
}

void route_open(struct route *route)
{
	char host[INET6_ADDRSTRLEN];
	uint16_t port;
	unsigned i;
	int one = 1;

	route->listener = -1;
	if (options.unix_pair) {
		for (i = 0; i < options.connections; i++)
			if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, route->pairs[i]))
				fail("socketpair: %s", strerror(errno));
		return;
	}
	route_aim(route);
	if (options.command == COMMAND_CLIENT)
		return;
	route->listener = socket(route->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(route->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (small_buffers())
		shrink_buffers(route->listener); /* accepted sockets inherit it; later the window is
						    already set */
	if (bind(route->listener, (struct sockaddr *)&route->address, route->address_length) ||
	    listen(route->listener, 64) ||
	    getsockname(route->listener, (struct sockaddr *)&route->address,
			&route->address_length))
		fail("listen: %s", strerror(errno));
	port = ntohs(options.ipv6 ? ((struct sockaddr_in6 *)&route->address)->sin6_port
				  : ((struct sockaddr_in *)&route->address)->sin_port);
	if (options.ipv6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&route->address)->sin6_addr, host,
			  sizeof(host));
	else
		inet_ntop(AF_INET, &((struct sockaddr_in *)&route->address)->sin_addr, host,
			  sizeof(host));
	report("{\"event\":\"listening\",\"pid\":%d,\"host\":\"%s\",\"port\":%u}", getpid(), host,
	       port);
}

void route_close(struct route *route)
{
	if (route->listener >= 0)
		close(route->listener);
}

int route_connect(const struct route *route, unsigned index)
{
	int fd;

	if (options.unix_pair) {
		fd = route->pairs[index][0];
		if (small_buffers())
			shrink_buffers(fd);
		return fd;
	}
	fd = socket(route->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail("socket: %s", strerror(errno));
	if (small_buffers())
		shrink_buffers(fd);
	if (connect(fd, (const struct sockaddr *)&route->address, route->address_length))
		fail("connect: %s", strerror(errno));
	return fd;
}

int route_accept(const struct route *route, unsigned index)
{
	int fd;

	if (options.unix_pair) {
		fd = route->pairs[index][1];
		if (small_buffers())
			shrink_buffers(fd);
		return fd;
	}
	fd = accept4(route->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		fail("accept: %s", strerror(errno));
	return fd;
}

/* A connection carried by another asks the upper library call of that one, as a program's own BIO
 * would. */
static int custom_write(BIO *bio, const char *bytes, int length)
{
	struct conversation *it = BIO_get_data(bio);
	size_t moved = 0;
	ssize_t sent;

	BIO_clear_retry_flags(bio);
	if (it->below) {
		sent = carry_write(it->below, bytes, length, &moved) ? (ssize_t)moved : -1;
	} else {
		sent = send(it->fd, bytes, length, MSG_NOSIGNAL);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			BIO_set_retry_write(bio);
	}
	fiber_yield(it);
	return sent;
}

static int custom_read(BIO *bio, char *bytes, int room)
{
	struct conversation *it = BIO_get_data(bio);
	size_t moved = 0;
	ssize_t received;

	BIO_clear_retry_flags(bio);
	fiber_yield(it);
	if (it->below)
		return carry_read(it->below, bytes, room, &moved) ? (int)moved : -1;
	received = recv(it->fd, bytes, room, 0);
	if (received < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	return received;
}

static long custom_control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static void custom_method_make(void)
{
	custom_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "peer");
	if (!custom_method)
		fail("no BIO method");
	BIO_meth_set_write(custom_method, custom_write);
	BIO_meth_set_read(custom_method, custom_read);
	BIO_meth_set_ctrl(custom_method, custom_control);
}

static void wire_custom(struct conversation *it)
{
	BIO *bio;

	pthread_once(&method_once, custom_method_make);
	bio = BIO_new(custom_method);
	BIO_set_data(bio, it);
	BIO_set_init(bio, 1);
	SSL_set_bio(it->ssl, bio, bio);
}

void link_wire(struct conversation *it)
{
	BIO *bio;

	if (it->below || options.wiring == WIRING_CUSTOM) {
		wire_custom(it);
	} else if (options.wiring == WIRING_MEMORY) {
		SSL_set_bio(it->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	} else if (options.wiring == WIRING_SOCKET) {
		bio = BIO_new_socket(it->fd, BIO_NOCLOSE);
		SSL_set_bio(it->ssl, bio, bio);
	} else if (SSL_set_fd(it->ssl, it->fd) != 1) {
		fail("SSL_set_fd");
	}
}

static void await_socket(int fd, short events)
{
	struct pollfd wanted = {.fd = fd, .events = events};

	while (poll(&wanted, 1, -1) < 0 && errno == EINTR)
		;
}

static bool memory_flush(struct conversation *it)
{
	BIO *bio = SSL_get_wbio(it->ssl);
	char bytes[16384];
	ssize_t sent;
	int length, offset;

	while (BIO_ctrl_pending(bio) > 0) {
		length = BIO_read(bio, bytes, sizeof(bytes));
		for (offset = 0; offset < length; offset += sent) {
			sent = send(it->fd, bytes + offset, length - offset, MSG_NOSIGNAL);
			if (sent < 0 && errno != EAGAIN && errno != EINTR)
				return false;
			if (sent < 0) {
				await_socket(it->fd, POLLOUT);
				sent = 0;
			}
		}
	}
	return true;
}

static bool memory_fill(struct conversation *it)
{
	char bytes[16384];
	ssize_t received;

	do {
		await_socket(it->fd, POLLIN);
		received = recv(it->fd, bytes, sizeof(bytes), 0);
	} while (received < 0 && (errno == EAGAIN || errno == EINTR));
	return received > 0 && BIO_write(SSL_get_rbio(it->ssl), bytes, received) == received;
}

/* To be asked after every call with what it returned. True: wait is over, the same call has to be
 * made again. */
bool link_settle(struct conversation *it, int result)
{
	int error = SSL_get_error(it->ssl, result);
	bool memory = options.wiring == WIRING_MEMORY && !it->below;

	if (memory && !memory_flush(it))
		return false;
	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
		return false;
	if (memory && error == SSL_ERROR_WANT_READ)
		return memory_fill(it);
	await_socket(it->fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT);
	return true;
}

void link_await_hangup(int fd)
{
	await_socket(fd, POLLRDHUP);
}

/* Whether the kernel encrypts what this connection sends; if not, why, in words fit for a test's
 * skip reason. */
bool link_ktls_sends(struct conversation *it, const char **reason)
{
	*reason = "";
	if (BIO_get_ktls_send(SSL_get_wbio(it->ssl)))
		return true;
	if (setsockopt(it->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) && errno == ENOENT)
		*reason = "this kernel has no kTLS (TCP_ULP tls: ENOENT)";
	else
		*reason = "libssl did not hand this connection to kTLS";
	return false;
}
