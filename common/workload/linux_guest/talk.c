// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process with a TCP connection through the network device, to the host: it
 * answers each block that it is asked, which only it can (common/guest/peer.py).
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tasks.h"

#define OWN_ADDRESS	"10.9.8.2"
#define NETMASK		"255.255.255.0"
#define HOST_ADDRESS	"10.9.8.1"
#define HOST_PORT	4243

#define WORDS 32
#define BLOCK_SIZE (WORDS * sizeof(u64))
#define AGAIN_MS 100

static struct sockaddr_in address(const char *text, unsigned int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, text, &address.sin_addr);
	return address;
}

static void set(int fd, unsigned long request, const char *text)
{
	struct ifreq ifreq = { .ifr_name = NIC };
	struct sockaddr_in value = address(text, 0);

	memcpy(&ifreq.ifr_addr, &value, sizeof(value));
	if (ioctl(fd, request, &ifreq))
		die("%s for " NIC, text);
}

static void set_address(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	set(fd, SIOCSIFADDR, OWN_ADDRESS);
	set(fd, SIOCSIFNETMASK, NETMASK);
	close(fd);
}

/* Returns a connection; the host may not listen yet. */
static int connect_host(void)
{
	struct sockaddr_in host = address(HOST_ADDRESS, HOST_PORT);

	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			die("socket");
		if (!connect(fd, (struct sockaddr *)&host, sizeof(host)))
			return fd;
		close(fd);
		sleep_ms(AGAIN_MS);
	}
}

static u64 seed(u64 number, u64 kind)
{
	return mix(shared->nonce ^ number ^ kind);
}

static bool read_block(int fd, u64 *block)
{
	return recv(fd, block, BLOCK_SIZE, MSG_WAITALL) == BLOCK_SIZE;
}

static void check(struct talk *own, const u64 *block)
{
	size_t at = first_difference(block + 1, WORDS - 1, seed(block[0], 0));

	if (block[0] != own->next)
		fault(&own->faults, "block %llu instead of %llu", block[0], own->next);
	else if (at < WORDS - 1)
		fault(&own->faults, "block %llu differs in word %zu", block[0], at + 1);
	own->next = block[0] + 1;
	own->blocks++;
}

void talk_to_host(void)
{
	struct talk *own = &shared->talk;
	u64 block[WORDS];
	int fd;

	while (!shared->nic.frames)
		sleep_ms(AGAIN_MS);
	set_address();
	fd = connect_host();
	for (;;) {
		if (own->renew) {
			own->renew = false;
			close(fd);
			fd = connect_host();
		}
		if (!read_block(fd, block))
			die("the connection to the host ended");
		check(own, block);
		fill_pattern(block + 1, WORDS - 1, seed(block[0], ~0ull));
		if (own->corrupt) {
			own->corrupt = false;
			block[WORDS / 2] ^= 1;
		}
		if (send(fd, block, BLOCK_SIZE, MSG_NOSIGNAL) != BLOCK_SIZE)
			die("the connection to the host took less than a block");
	}
}
