// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process that reads numbered frames from the first network device, where the
 * machine has one: what is lost, comes twice, or is damaged between the device
 * and an ordinary program.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "tasks.h"

/* The sender's EtherType, one for local experiments. */
#define FRAMES_ETHERTYPE 0x88b5
/* As many as igb has: what comes while nobody reads has to have room. */
#define DESCRIPTORS 4096
/* For as many frames as that, each with its socket buffer. */
#define RECEIVE_BUFFER (32 << 20)
#define MAX_FRAME 2048

bool nic_present(void)
{
	return if_nametoindex(NIC) != 0;
}

static int ask(int fd, void *command)
{
	struct ifreq request = { .ifr_name = NIC, .ifr_data = command };

	return ioctl(fd, SIOCETHTOOL, &request);
}

static void enlarge_ring(int fd)
{
	struct ethtool_ringparam ring = { .cmd = ETHTOOL_GRINGPARAM };

	if (ask(fd, &ring))
		die("ethtool -g");
	ring.cmd = ETHTOOL_SRINGPARAM;
	ring.rx_pending = DESCRIPTORS;
	if (ask(fd, &ring))
		die("ethtool -G");
}

static void bring_up(int fd)
{
	struct ifreq request = { .ifr_name = NIC, .ifr_flags = IFF_UP };

	if (ioctl(fd, SIOCSIFFLAGS, &request))
		die("ip link set up");
}

static int frames_open(void)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(FRAMES_ETHERTYPE),
		.sll_ifindex = if_nametoindex(NIC),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), size = RECEIVE_BUFFER;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("packet socket");
	return fd;
}

static bool link_is_up(int fd)
{
	struct ethtool_value link = { .cmd = ETHTOOL_GLINK };

	return !ask(fd, &link) && link.data;
}

static void take(struct nic *own, const struct frame *frame, ssize_t length)
{
	if (length < 0 || !frame_is_whole(frame, shared->nonce, length)) {
		own->damaged++;
		fault(&own->faults, "a frame of %zd bytes is not as it was sent", length);
		return;
	}
	if (frame->sequence < own->next) {
		own->repeated++;
		fault(&own->faults, "frame %llu came again", frame->sequence);
		return;
	}
	if (frame->sequence > own->next) {
		own->lost += frame->sequence - own->next;
		fault(&own->faults, "frames %llu to %llu did not come", own->next,
		      frame->sequence - 1);
	}
	own->next = frame->sequence + 1;
	own->frames++;
}

/* By the device's own counter, as the driver sums it up; 0 when it does not say. */
u64 nic_counted(void)
{
	static int fd = -1;
	static struct ethtool_gstrings *names;
	static struct ethtool_stats *stats;
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };

	if (fd < 0)
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!names) {
		if (ask(fd, &info) || !info.n_stats)
			return 0;
		names = calloc(1, sizeof(*names) + info.n_stats * ETH_GSTRING_LEN);
		stats = calloc(1, sizeof(*stats) + info.n_stats * sizeof(u64));
		names->cmd = ETHTOOL_GSTRINGS;
		names->string_set = ETH_SS_STATS;
		names->len = info.n_stats;
		if (ask(fd, names))
			return 0;
	}
	stats->cmd = ETHTOOL_GSTATS;
	stats->n_stats = names->len;
	if (ask(fd, stats))
		return 0;
	for (u32 i = 0; i < names->len; i++)
		if (!strcmp((char *)names->data + i * ETH_GSTRING_LEN, "rx_packets"))
			return stats->data[i];
	return 0;
}

void receive_frames(void)
{
	struct nic *own = &shared->nic;
	union {
		struct frame frame;
		char bytes[MAX_FRAME];
	} buffer;
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd;

	enlarge_ring(control);
	bring_up(control);
	fd = frames_open();
	while (!link_is_up(control))
		sleep_ms(10);
	own->up = true;
	for (;;) {
		ssize_t length = recv(fd, &buffer, sizeof(buffer), 0);

		if (length < 0)
			die("recv");
		if (own->corrupt) {
			own->corrupt = false;
			buffer.frame.sent_ns ^= 1;
		}
		take(own, &buffer.frame, length);
	}
}
