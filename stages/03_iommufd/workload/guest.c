// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 3's guest, set-up (b): it reads the ring of the device that is assigned to it,
 * refills it, and moves the device's tail on, between two steps of its sweep. It knows
 * nothing of the live update.
 */
#include "guest.h"
#include "guest_map.h"
#include "reader.h"

/* A step of the sweep must not be kept waiting by a ring that filled up in a pause. */
#define FRAMES_PER_STEP 64

static void read_ring(u8 *memory, volatile u32 *tail)
{
	struct reader *reader = (void *)memory;

	for (int n = 0; n < FRAMES_PER_STEP; n++) {
		int index = reader_take(memory);

		if (index < 0)
			return;
		*tail = index;
		reader->doorbells++;
	}
}

void guest_main(struct guest_vcpu *block)
{
	struct reader *reader = (void *)GUEST_RING;

	guest_start(block);
	for (;;) {
		if (!block->id && READ_ONCE(reader->active))
			read_ring((void *)GUEST_RING, (void *)(GUEST_BAR + IGB_RDT0));
		guest_step();
	}
}
