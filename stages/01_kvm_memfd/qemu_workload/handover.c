// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handover.h"

static u64 page_align(u64 size)
{
	return (size + GUEST_PAGE_SIZE - 1) / GUEST_PAGE_SIZE * GUEST_PAGE_SIZE;
}

/*
 * Digests and page frames. bench/ways_to_cross.py leaves them out: they take
 * longer, and more room, than what it measures.
 */
bool proof_wanted(void)
{
	return param_u64("proof", 1);
}

/* QEMU empties its file up to this offset and no further. */
u64 handover_stream_offset(u64 ram_size)
{
	u64 entries = proof_wanted() ? 2 * ram_size / GUEST_PAGE_SIZE : 0;

	return page_align(sizeof(struct handover)) + page_align(entries * sizeof(u64));
}

u64 *handover_digests(struct handover *handover)
{
	return (u64 *)((u8 *)handover + page_align(sizeof(*handover)));
}

u64 *handover_pfns(struct handover *handover)
{
	return handover_digests(handover) + handover->pages;
}

static u64 file_size(int fd)
{
	struct stat stat;

	must(sys(fstat(fd, &stat)));
	return stat.st_size;
}

/* All of the file; what QEMU appends later is not in the mapping. */
struct handover *handover_map(int fd)
{
	void *at = mmap(NULL, file_size(fd), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must_be(at != MAP_FAILED, "%s", errno_name(-errno));
	return at;
}

struct handover *handover_create(u64 nonce, u64 ram_size, u64 vcpus, int *fd)
{
	struct handover *handover;

	*fd = memfd_new("handover", handover_stream_offset(ram_size));
	handover = handover_map(*fd);
	*handover = (struct handover){
		.magic = HANDOVER_MAGIC,
		.layout = HANDOVER_LAYOUT,
		.nonce = nonce,
		.ram_size = ram_size,
		.pages = ram_size / GUEST_PAGE_SIZE,
		.vcpus = vcpus,
	};
	return handover;
}

/* Bytes that QEMU wrote. */
u64 handover_stream_size(const struct handover *handover, int fd)
{
	return file_size(fd) - handover_stream_offset(handover->ram_size);
}

/* What is wrong with it, in a word; NULL when it may be used. */
const char *handover_refused(const struct handover *handover, int fd, u64 nonce)
{
	u64 size = file_size(fd);

	if (size < sizeof(*handover) || handover->magic != HANDOVER_MAGIC)
		return "magic";
	if (handover->layout != HANDOVER_LAYOUT)
		return "layout";
	if (handover->nonce != nonce)
		return "nonce";
	if (size < handover_stream_offset(handover->ram_size) ||
	    handover->pages != handover->ram_size / GUEST_PAGE_SIZE ||
	    handover_stream_size(handover, fd) != handover->stream_size)
		return "size";
	return NULL;
}
