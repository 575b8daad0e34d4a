// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 2's guest reads the device's receive ring, which lies in its own
 * memory, between two steps of its sweep. It knows nothing of the device but
 * the descriptors, and nothing of the live update.
 */
#include "frame.h"
#include "guest.h"

/* A step of the sweep must not be kept waiting by a ring that filled up in a pause. */
#define FRAMES_PER_STEP 64

static void note_bad(struct ring *ring)
{
	if (!ring->lost && !ring->repeated && !ring->damaged)
		ring->first_bad = ring->sequence;
}

static void take_frame(struct ring *ring, const struct frame *frame, u16 length)
{
	if (!frame_is_whole(frame, ring->nonce, length)) {
		note_bad(ring);
		ring->damaged++;
		return;
	}
	if (frame->sequence < ring->sequence) {
		note_bad(ring);
		ring->repeated++;
		return;
	}
	if (frame->sequence > ring->sequence) {
		note_bad(ring);
		ring->lost += frame->sequence - ring->sequence;
	}
	ring->sequence = frame->sequence + 1;
}

static void read_ring(struct ring *ring)
{
	for (int n = 0; n < FRAMES_PER_STEP; n++) {
		u32 index = ring->next;
		volatile union igb_rx_desc *descriptor = (void *)ring_descriptor(ring, index);

		if (!(descriptor->wb.status & IGB_RX_DONE))
			return;
		take_frame(ring, (const struct frame *)ring_buffer(ring, index),
			   descriptor->wb.length);
		/* The write of the header's address takes the done bit away. */
		descriptor->read.packet = ring_buffer_pa(ring, index);
		descriptor->read.header = 0;
		ring->next = (index + 1) % ring->count;
		WRITE_ONCE(ring->tail, index);
		WRITE_ONCE(ring->frames, ring->frames + 1);
	}
}

void guest_main(struct guest_vcpu *block)
{
	struct ring *ring = (struct ring *)GUEST_STAGE;
	bool reader = !block->id;

	guest_start(block);
	for (;;) {
		if (reader && READ_ONCE(ring->active))
			read_ring(ring);
		guest_step();
	}
}
