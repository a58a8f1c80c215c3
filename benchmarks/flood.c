// SPDX-License-Identifier: Apache-2.0
/*
 * Sends UDP datagrams, at a rate or as fast as it can: flood ADDRESS PORT SECONDS BYTES RATE [INTERFACE MAC SOURCE]
 *
 * RATE is in datagrams a second, 0 for no limit. Prints how many there were, and the nanoseconds of processor time that
 * sending them took, which includes whatever captures them on their way.
 *
 * By default they come from a socket, 64 with one call: each is a send of its own for the kernel (no segmentation is left
 * to it). With the name of an interface, the address of the other end of it and an address to send from, whole frames are
 * put on the wire from a ring that is shared with the kernel (PACKET_TX_RING), past the queues: the sender then costs
 * next to nothing, and the other end gets more than sockets can send. How many arrive, the interface counts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, LONGEST = 1472, FRAME = 2048, FRAMES = 512, BLOCK = 1 << 16 };

struct flood {
	int sock;
	size_t length;
	struct sockaddr_in to;
	char payload[LONGEST];
	struct mmsghdr messages[BATCH];
	struct iovec part;
	char *ring;
	unsigned next;
};

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

static void require(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

static void open_socket(struct flood *flood)
{
	flood->sock = socket(AF_INET, SOCK_DGRAM, 0);
	require(!connect(flood->sock, (void *)&flood->to, sizeof(flood->to)), "connect");
	flood->part = (struct iovec){ flood->payload, flood->length };
	for (int i = 0; i < BATCH; i++) {
		flood->messages[i].msg_hdr.msg_iov = &flood->part;
		flood->messages[i].msg_hdr.msg_iovlen = 1;
	}
}

static unsigned short checksum(const void *header, size_t length)
{
	const unsigned short *words = header;
	unsigned sum = 0;

	for (size_t i = 0; i < length / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xFFFF) + (sum >> 16);
	return ~sum;
}

static size_t lay_out(struct flood *flood, char *at, const char *mac, const char *source)
{
	struct ether_header *ether = (void *)at;
	struct iphdr *ip = (void *)(ether + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct ether_addr *to = ether_aton(mac);

	require(to != NULL, "MAC");
	memcpy(ether->ether_dhost, to, sizeof(*to));
	ether->ether_shost[0] = 2;
	ether->ether_type = htons(ETHERTYPE_IP);
	ip->version = 4;
	ip->ihl = 5;
	ip->ttl = 64;
	ip->protocol = IPPROTO_UDP;
	ip->tot_len = htons(sizeof(*ip) + sizeof(*udp) + flood->length);
	require(inet_pton(AF_INET, source, &ip->saddr) == 1, "SOURCE");
	ip->daddr = flood->to.sin_addr.s_addr;
	ip->check = checksum(ip, sizeof(*ip));
	udp->source = htons(40000);
	udp->dest = flood->to.sin_port;
	udp->len = htons(sizeof(*udp) + flood->length); /* without a checksum, which IPv4 allows */
	return sizeof(*ether) + sizeof(*ip) + sizeof(*udp) + flood->length;
}

static void open_ring(struct flood *flood, char **words)
{
	struct tpacket_req wanted = { BLOCK, FRAMES * FRAME / BLOCK, FRAME, FRAMES };
	struct sockaddr_ll at = { .sll_family = AF_PACKET };
	int version = TPACKET_V2, yes = 1;

	at.sll_ifindex = if_nametoindex(words[0]);
	require(at.sll_ifindex, words[0]);
	flood->sock = socket(AF_PACKET, SOCK_RAW, 0); /* receives nothing */
	require(flood->sock >= 0, "socket");
	require(!setsockopt(flood->sock, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)), "PACKET_VERSION");
	require(!setsockopt(flood->sock, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof(yes)), "PACKET_QDISC_BYPASS");
	require(!setsockopt(flood->sock, SOL_PACKET, PACKET_TX_RING, &wanted, sizeof(wanted)), "PACKET_TX_RING");
	require(!bind(flood->sock, (void *)&at, sizeof(at)), "bind");
	flood->ring = mmap(NULL, FRAMES * FRAME, PROT_READ | PROT_WRITE, MAP_SHARED, flood->sock, 0);
	require(flood->ring != MAP_FAILED, "mmap");
	for (int i = 0; i < FRAMES; i++) {
		struct tpacket2_hdr *head = (void *)(flood->ring + i * FRAME);

		head->tp_len = lay_out(flood, (char *)head + TPACKET2_HDRLEN - sizeof(at), words[1], words[2]);
	}
}

/* Returns how many the kernel took. */
static int send_some(struct flood *flood)
{
	int count = 0;

	if (!flood->ring) {
		count = sendmmsg(flood->sock, flood->messages, BATCH, 0);
		return count > 0 ? count : 0;
	}
	for (; count < BATCH; count++, flood->next = (flood->next + 1) % FRAMES) {
		struct tpacket2_hdr *head = (void *)(flood->ring + flood->next * FRAME);

		if (__atomic_load_n(&head->tp_status, __ATOMIC_ACQUIRE) != TP_STATUS_AVAILABLE)
			break;
		__atomic_store_n(&head->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
	}
	send(flood->sock, NULL, 0, 0);
	return count;
}

int main(int count, char **words)
{
	static struct flood flood;
	long long sent = 0;
	double begin, end, rate;

	if ((count != 6 && count != 9) || inet_pton(AF_INET, words[1], &flood.to.sin_addr) != 1) {
		fprintf(stderr, "usage: %s ADDRESS PORT SECONDS BYTES RATE [INTERFACE MAC SOURCE]\n", words[0]);
		return 2;
	}
	flood.to.sin_family = AF_INET;
	flood.to.sin_port = htons(atoi(words[2]));
	flood.length = atoi(words[4]) > LONGEST ? LONGEST : atoi(words[4]);
	rate = atof(words[5]);
	if (count == 9)
		open_ring(&flood, words + 6);
	else
		open_socket(&flood);
	begin = now();
	end = begin + atof(words[3]);
	while (now() < end) {
		if (rate > 0 && sent >= (now() - begin) * rate) {
			struct timespec pause = { 0, 50000 };

			nanosleep(&pause, NULL);
			continue;
		}
		sent += send_some(&flood);
	}
	if (flood.ring)
		send(flood.sock, NULL, 0, 0); /* whatever is left */
	printf("%lld %lld %.6f\n", sent, spent(), now() - begin);
	return 0;
}
