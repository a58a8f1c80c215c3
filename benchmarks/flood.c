// SPDX-License-Identifier: Apache-2.0
/*
 * Sends UDP datagrams, at a rate or as fast as it can: flood ADDRESS PORT SECONDS BYTES RATE
 *
 * RATE is in datagrams a second, 0 for no limit. Prints how many the kernel took, and the nanoseconds of processor
 * time that sending them took, which includes whatever captures them on their way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, LONGEST = 1472 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static long long spent(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000LL +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000LL;
}

int main(int count, char **words)
{
	static char payload[LONGEST];
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct mmsghdr messages[BATCH];
	struct iovec part = { payload, 0 };
	long long sent = 0;
	double begin, end, rate;
	int sock, i, done;

	if (count != 6 || inet_pton(AF_INET, words[1], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: %s ADDRESS PORT SECONDS BYTES RATE\n", words[0]);
		return 2;
	}
	to.sin_port = htons(atoi(words[2]));
	part.iov_len = atoi(words[4]) > LONGEST ? LONGEST : atoi(words[4]);
	rate = atof(words[5]);
	sock = socket(AF_INET, SOCK_DGRAM, 0);
	if (connect(sock, (void *)&to, sizeof(to))) {
		perror("connect");
		return 1;
	}
	memset(messages, 0, sizeof(messages));
	for (i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &part;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	begin = now();
	end = begin + atof(words[3]);
	while (now() < end) {
		if (rate > 0 && sent >= (now() - begin) * rate) {
			struct timespec pause = { 0, 50000 };

			nanosleep(&pause, NULL);
			continue;
		}
		done = sendmmsg(sock, messages, BATCH, 0);
		if (done > 0)
			sent += done;
	}
	printf("%lld %lld %.6f\n", sent, spent(), now() - begin);
	return 0;
}
