/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ring in the memory that is handed over, and how it is read: by this program, or by
 * a guest that the device is assigned to.
 *
 *	0		what the reader knows
 *	0x1000		descriptors
 *	READER_CHUNK	buffers, in chunks
 *
 * The first READER_CHUNK, and each chunk of buffers, is an area of its own in the IOAS.
 */
#ifndef READER_H
#define READER_H

#include "frame.h"

#define READER_CHUNK (2ull << 20)
#define READER_CHUNK_DESCRIPTORS (READER_CHUNK / RING_BUFFER_SIZE)
/* Chunks are not next to each other, so that each has page tables of its own. */
#define READER_CHUNK_STRIDE (3 * READER_CHUNK)
#define READER_DESCRIPTORS RING_PAGE_SIZE

/**
 * struct reader - what the reader knows
 * @nonce: of this run; a frame of another one is damaged
 * @iova: of the beginning of this memory, for the device
 * @active: set when a guest may read
 * @count: number of descriptors
 * @next: descriptor that is looked at next
 * @doorbells: how often the reader has moved the device's tail on
 * @frames: frames seen
 * @sequence: of the frame that is expected next
 * @lost: frames missing, by their sequence numbers
 * @damaged: frames that are not what was sent
 * @missing: descriptors that were done while their buffers were as before
 * @canary: physical address of a page that no IOVA leads to
 * @read_only: set when a page is mapped, and handed over, that the device may only read
 * @pfns: stands for where all pages are
 * @kexecs: how often this memory has been handed over
 */
struct reader {
	u64 nonce;
	u64 iova;
	u64 active;
	u32 count;
	u32 next;
	u64 doorbells;
	u64 frames;
	u64 sequence;
	u64 lost;
	u64 damaged;
	u64 missing;
	u64 canary;
	u64 read_only;
	u64 pfns;
	u64 kexecs;
};

static inline u64 reader_chunk_iova(const struct reader *reader, u32 chunk)
{
	return reader->iova + READER_CHUNK + chunk * READER_CHUNK_STRIDE;
}

static inline volatile union igb_rx_desc *reader_descriptor(u8 *memory, u32 index)
{
	return (void *)(memory + READER_DESCRIPTORS + index * sizeof(union igb_rx_desc));
}

static inline struct frame *reader_frame(u8 *memory, u32 index)
{
	return (void *)(memory + READER_CHUNK + (u64)index * RING_BUFFER_SIZE);
}

/* The device may use it, again. */
static inline void reader_refill(u8 *memory, u32 index)
{
	volatile union igb_rx_desc *desc = reader_descriptor(memory, index);
	const struct reader *reader = (const void *)memory;

	desc->read.packet = reader_chunk_iova(reader, index / READER_CHUNK_DESCRIPTORS) +
			    index % READER_CHUNK_DESCRIPTORS * RING_BUFFER_SIZE;
	/* This takes the done bit away. */
	desc->read.header = 0;
}

static inline void reader_look(struct reader *reader, const struct frame *frame, u16 length)
{
	bool ours = frame_is_whole(frame, reader->nonce, length);

	if (!frame->magic || (ours && frame->sequence < reader->sequence)) {
		/* Written back, but the buffer holds what it held before. */
		WRITE_ONCE(reader->missing, reader->missing + 1);
		reader->sequence++;
	} else if (!ours) {
		reader->damaged++;
	} else {
		if (frame->sequence != reader->sequence)
			reader->lost += frame->sequence - reader->sequence;
		reader->sequence = frame->sequence + 1;
		WRITE_ONCE(reader->frames, reader->frames + 1);
	}
}

/* The index of a descriptor that has been read and refilled, -1 when there is none. */
static inline int reader_take(u8 *memory)
{
	struct reader *reader = (void *)memory;
	u32 index = reader->next;
	volatile union igb_rx_desc *desc = reader_descriptor(memory, index);

	if (!(desc->wb.status & IGB_RX_DONE))
		return -1;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	reader_look(reader, reader_frame(memory, index), desc->wb.length);
	reader_refill(memory, index);
	WRITE_ONCE(reader->next, (index + 1) % reader->count);
	return index;
}

#endif
