/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tlspeer: TLS connections that say one known thing and report exactly what was said.
 *
 *   gcc -O1 -g -pthread -o tlspeer tlspeer.c peer_*.c -lssl -lcrypto           (build.py knows the
 * variants)
 *
 *   tlspeer pair   [options]             both ends in this process, the server in a thread (or in
 * workers, --fork) tlspeer server [options]             one end; prints the port the kernel chose
 *   tlspeer client --port N [options]    the other end; both must be given the same payload options
 *
 * With --hold a side says nothing more and does not close before its peer has; a peer with
 * --die-mid-call needs that. The client writes all its messages, then the server all of its own;
 * both check every byte and print, as JSON lines, what each direction moved: bytes, calls, SHA-256,
 * thread ids, addresses. The last line is {"event":"end","ok":...} and the exit status is 0 only if
 * everything was as it should be.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct options options = {
	.token = "token",
	.sizes = {100},
	.size_count = 1,
	.count = 1,
	.read_size = 16384,
	.threads = 1,
	.deadline = 60,
};

struct run {
	struct route route;
	SSL_CTX *contexts[2];
	bool good[2];
};

/* The gate of --wait-connected: every conversation of the process arrives, then one line on
 * standard input opens it. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned arrived;
	bool open;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void await_line(const char *stage)
{
	char letter = 0;

	report("{\"event\":\"ready\",\"ready\":\"%s\",\"pid\":%d,\"tid\":%d}", stage, getpid(),
	       thread_id());
	while (letter != '\n' && read(STDIN_FILENO, &letter, 1) == 1)
		;
}

/* The client's thread opens the gate, or the only thread there is; all others wait in front of it.
 */
static void gate_pass(const struct conversation *it)
{
	unsigned wanted = options.command != COMMAND_PAIR ? 1 : options.fibers ? 3 : 2;

	if (!options.wait_connected || it->generation)
		return;
	pthread_mutex_lock(&gate.lock);
	gate.arrived++;
	pthread_cond_broadcast(&gate.changed);
	if (it->side == SIDE_CLIENT || wanted == 1) {
		while (gate.arrived < wanted)
			pthread_cond_wait(&gate.changed, &gate.lock);
		await_line("connected");
		gate.open = true;
		pthread_cond_broadcast(&gate.changed);
	}
	while (!gate.open)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
}

/* The object for the next connection: a new one, the same one cleared, or a new one at the old
 * address. */
static SSL *handle_next(SSL_CTX *context, SSL *previous)
{
	SSL *rejected[1000];
	unsigned tries = 0;
	SSL *ssl;

	if (previous && options.clear) {
		if (SSL_clear(previous) != 1)
			fail("SSL_clear");
		report("{\"event\":\"handle\",\"ssl\":\"%p\",\"made_by\":\"SSL_clear\",\"same_"
		       "address\":true}",
		       (void *)previous);
		return previous;
	}
	SSL_free(previous);
	ssl = SSL_new(context);
	while (previous && options.reuse_handle && ssl != previous && tries < 1000) {
		rejected[tries++] = ssl;
		ssl = SSL_new(context);
	}
	report("{\"event\":\"handle\",\"ssl\":\"%p\",\"made_by\":\"SSL_new\",\"tries\":%u,\"same_"
	       "address\":%s}",
	       (void *)ssl, tries + 1, previous && ssl == previous ? "true" : "false");
	while (tries)
		SSL_free(rejected[--tries]);
	if (!ssl || (previous && options.reuse_handle && ssl != previous))
		fail("the old address did not come back");
	return ssl;
}

static bool inner_exchange(struct conversation *outer, SSL_CTX *context)
{
	struct conversation inner;
	SSL *ssl = SSL_new(context);
	bool good;

	conversation_open(&inner, outer->side, outer->generation, outer->fd, ssl);
	inner.below = outer;
	link_wire(&inner);
	good = handshake(&inner);
	if (good) {
		report_connected(&inner);
		gate_pass(&inner);
		good = exchange(&inner);
	}
	report_done(&inner);
	SSL_free(ssl);
	conversation_close(&inner);
	return good;
}

static bool talk(struct conversation *it, SSL_CTX *context)
{
	if (options.early_data && it->generation && !early_exchange(it))
		return false;
	if (!handshake(it))
		return false;
	report_connected(it);
	if (options.early_data && it->generation &&
	    SSL_get_early_data_status(it->ssl) != SSL_EARLY_DATA_ACCEPTED) {
		fprintf(stderr, "early data was not accepted\n");
		return false;
	}
	if (options.tls_in_tls)
		return inner_exchange(it, context);
	gate_pass(it);
	if (!exchange(it))
		return false;
	if (options.sendfile)
		return it->side == SIDE_CLIENT ? write_file(it) : read_file(it);
	return true;
}

/* Whether it is this side that dies; the other one only waits for its end. */
static bool dies_here(const struct conversation *it)
{
	return it->side == (options.command == COMMAND_SERVER ? SIDE_SERVER : SIDE_CLIENT);
}

static void part(struct conversation *it)
{
	if (options.dying && dies_here(it))
		die_mid_call(it);
	if (options.dying || options.hold)
		link_await_hangup(it->fd);
	SSL_shutdown(it->ssl);
	link_settle(it, 1);
	close(it->fd);
}

/* All connections of one side, one after another. */
static bool serve_side(struct run *run, enum side side)
{
	SSL_CTX *context = run->contexts[side];
	SSL_SESSION *session = NULL;
	struct conversation it;
	SSL *ssl = NULL;
	unsigned i;
	bool good = true;
	int fd;

	for (i = 0; i < options.connections && good; i++) {
		fd = side == SIDE_CLIENT ? route_connect(&run->route, i)
					 : route_accept(&run->route, i);
		if (options.seccomp)
			confine();
		ssl = handle_next(context, ssl);
		conversation_open(&it, side, i, fd, ssl);
		link_wire(&it);
		if (session)
			SSL_set_session(ssl, session);
		good = talk(&it, context);
		it.wrong |= !good;
		report_done(&it);
		if (side == SIDE_CLIENT && options.early_data && !session)
			session = SSL_get1_session(ssl);
		part(&it);
		conversation_close(&it);
	}
	SSL_SESSION_free(session);
	SSL_free(ssl);
	return good;
}

static void *serve_in_thread(void *argument)
{
	struct run *run = argument;

	run->good[SIDE_SERVER] = serve_side(run, SIDE_SERVER);
	return NULL;
}

/* Two connections of one client thread, each with a server thread of its own. */
static bool run_fibers(struct run *run)
{
	struct conversation its[2];
	pthread_t threads[2];
	bool good;
	unsigned i;

	options.connections = 1;
	for (i = 0; i < 2; i++) {
		if (pthread_create(&threads[i], NULL, serve_in_thread, run))
			fail("no thread");
		conversation_open(&its[i], SIDE_CLIENT, i, route_connect(&run->route, i),
				  SSL_new(run->contexts[SIDE_CLIENT]));
		link_wire(&its[i]);
		if (!handshake(&its[i]))
			return false;
		report_connected(&its[i]);
	}
	gate_pass(&its[0]);
	exchange_in_fibers(&its[0], &its[1]);
	good = !its[0].wrong && !its[1].wrong;
	for (i = 0; i < 2; i++) {
		report_done(&its[i]);
		part(&its[i]);
		pthread_join(threads[i], NULL);
		SSL_free(its[i].ssl);
		conversation_close(&its[i]);
	}
	return good && run->good[SIDE_SERVER];
}

static bool run_pair(struct run *run)
{
	pthread_t thread;

	if (options.fibers)
		return run_fibers(run);
	if (pthread_create(&thread, NULL, serve_in_thread, run))
		fail("no thread");
	run->good[SIDE_CLIENT] = serve_side(run, SIDE_CLIENT);
	pthread_join(thread, NULL);
	return run->good[SIDE_CLIENT] && run->good[SIDE_SERVER];
}

/* Each worker serves its own connections from the shared listener and ends, so every one of them is
 * heard. */
static bool run_workers(struct run *run)
{
	pid_t parent = getpid(), pid, pids[CONNECTIONS_MAXIMUM];
	int status;
	bool good = true;
	unsigned i;

	for (i = 0; i < options.workers; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			fail("fork: %s", strerror(errno));
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(1);
			alarm(options.deadline);
			_exit(serve_side(run, SIDE_SERVER) ? 0 : 1);
		}
		report("{\"event\":\"worker\",\"pid\":%d}", pids[i]);
	}
	if (options.wait_go)
		await_line("start");
	for (i = 0; options.command == COMMAND_PAIR && i < options.workers; i++)
		good &= serve_side(run, SIDE_CLIENT);
	for (i = 0; i < options.workers; i++) {
		do
			pid = waitpid(pids[i], &status, 0);
		while (pid < 0 && errno == EINTR);
		good &= pid == pids[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	}
	return good;
}

static bool run_all(struct run *run)
{
	if (options.workers)
		return run_workers(run);
	if (options.wait_go)
		await_line("start");
	if (options.command == COMMAND_PAIR)
		return run_pair(run);
	return serve_side(run, options.command == COMMAND_SERVER ? SIDE_SERVER : SIDE_CLIENT);
}

int main(int count, char **words)
{
	struct run run = {0};
	bool good;

	options_read(count, words);
	signal(SIGPIPE, SIG_IGN);
	alarm(options.deadline);
	run.contexts[SIDE_CLIENT] = context_new(SIDE_CLIENT);
	run.contexts[SIDE_SERVER] = context_new(SIDE_SERVER);
	route_open(&run.route);
	good = run_all(&run);
	route_close(&run.route);
	SSL_CTX_free(run.contexts[SIDE_CLIENT]);
	SSL_CTX_free(run.contexts[SIDE_SERVER]);
	report("{\"event\":\"end\",\"pid\":%d,\"ok\":%s}", getpid(), good ? "true" : "false");
	return good ? 0 : 1;
}
