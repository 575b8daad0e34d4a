// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "guest_ram.h"
#include "handover.h"

_Static_assert(sizeof(struct handover) <= HANDOVER_STREAM, "the stream begins behind it");

struct handover *handover_map(int fd)
{
	void *at = mmap(NULL, HANDOVER_STREAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must_be(at != MAP_FAILED, "%s", errno_name(-errno));
	return at;
}

struct handover *handover_create(int *fd)
{
	struct handover *handover;

	*fd = memfd_new("handover", HANDOVER_STREAM);
	handover = handover_map(*fd);
	*handover = (struct handover){
		.magic = HANDOVER_MAGIC,
		.layout = HANDOVER_LAYOUT,
		.nonce = param_nonce(),
	};
	return handover;
}

/* What is wrong with it, in a word; NULL when it may be used. @size: of its file. */
const char *handover_refused(const struct handover *handover, u64 size)
{
	if (handover->magic != HANDOVER_MAGIC)
		return "magic";
	if (handover->layout != HANDOVER_LAYOUT)
		return "layout";
	if (handover->nonce != param_nonce())
		return "nonce";
	if (handover->nr_areas > HANDOVER_AREAS || handover->state.size > CPR_MAX_SIZE ||
	    size != HANDOVER_STREAM + handover->stream_size)
		return "size";
	return NULL;
}
