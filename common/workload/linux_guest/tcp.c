// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two processes and one TCP connection that stays open. Each end keeps a
 * checksum of all bytes that went through it; every block depends on its place
 * in the stream.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tasks.h"

#define BLOCK_WORDS 128
#define BLOCK_SIZE (BLOCK_WORDS * sizeof(u64))
#define SEND_MS 5

static struct sockaddr_in address(void)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(TCP_PORT),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

static u64 seed(u64 bytes)
{
	return mix(shared->nonce ^ bytes);
}

static void count(struct tcp_end *own, const u64 *block)
{
	u64 sum = own->sum;

	for (int i = 0; i < BLOCK_WORDS; i++)
		sum = mix(sum ^ block[i]);
	own->sum = sum;
	own->bytes += BLOCK_SIZE;
}

static void read_block(int fd, u64 *block)
{
	size_t done = 0;

	while (done < BLOCK_SIZE) {
		ssize_t got = read(fd, (char *)block + done, BLOCK_SIZE - done);

		if (got <= 0)
			die("the TCP connection ended (%zd)", got);
		done += got;
	}
}

void receive_tcp(void)
{
	struct sockaddr_in own_address = address();
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	u64 block[BLOCK_WORDS];

	if (bind(listener, (struct sockaddr *)&own_address, sizeof(own_address)) ||
	    listen(listener, 1))
		die("bind");
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept");
	close(listener);
	for (;;) {
		struct tcp_end *own = &shared->receiver;
		size_t at;

		read_block(fd, block);
		at = first_difference(block, BLOCK_WORDS, seed(own->bytes));
		if (at < BLOCK_WORDS)
			fault(&own->faults, "byte %llu of the stream differs",
			      own->bytes + at * sizeof(u64));
		count(own, block);
	}
}

void send_tcp(void)
{
	struct sockaddr_in other = address();
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	u64 block[BLOCK_WORDS];

	/* The other process may not listen yet. */
	while (connect(fd, (struct sockaddr *)&other, sizeof(other))) {
		close(fd);
		sleep_ms(SEND_MS);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	}
	for (;;) {
		struct tcp_end *own = &shared->sender;

		fill_pattern(block, BLOCK_WORDS, seed(own->bytes));
		count(own, block);
		if (shared->corrupt_tcp) {
			shared->corrupt_tcp = false;
			block[BLOCK_WORDS / 2] ^= 1;
		}
		if (write(fd, block, BLOCK_SIZE) != BLOCK_SIZE)
			die("the TCP connection took less than a block");
		sleep_ms(SEND_MS);
	}
}
