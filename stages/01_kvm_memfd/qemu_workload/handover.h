/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The second memfd: what the incoming side has to know before it starts a QEMU,
 * and behind it what the outgoing QEMU wrote.
 *
 *	struct handover, up to a page
 *	u64 digest[pages]	content of each page of RAM while the guest was paused
 *	u64 pfn[pages]		where each page was in the outgoing kernel
 *	QEMU's migration stream, from handover_stream_offset() to the end of the file
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "guest_ram.h"

#define HANDOVER_MAGIC	0x554d45515354534bull
#define HANDOVER_LAYOUT	1

struct handover {
	u64 magic;
	u64 layout;
	u64 nonce;
	u64 ram_size;
	u64 pages;
	u64 vcpus;
	u64 stream_size;
};

bool proof_wanted(void);
struct handover *handover_create(u64 nonce, u64 ram_size, u64 vcpus, int *fd);
struct handover *handover_map(int fd);
const char *handover_refused(const struct handover *handover, int fd, u64 nonce);
u64 *handover_digests(struct handover *handover);
u64 *handover_pfns(struct handover *handover);
u64 handover_stream_offset(u64 ram_size);
u64 handover_stream_size(const struct handover *handover, int fd);

#endif
