/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the VMM and the guest know of a receive ring. All of it lies in memory
 * that is handed over: the next kernel's VMM and the guest find it as it was.
 * Addresses are offsets into that memory; the device has physical ones.
 */
#ifndef RING_H
#define RING_H

#include "types.h"

/* Advanced receive descriptor, one buffer: as written by us, and written back. */
union igb_rx_desc {
	struct {
		u64 packet;
		u64 header;
	} read;
	struct {
		u16 packet_info;
		u16 header_info;
		u32 rss;
		u32 status;
		u16 length;
		u16 vlan;
	} wb;
};

#define IGB_RX_DONE 0x1u

#define RING_BUFFER_SIZE	2048
#define RING_MAX		32768
#define RING_PAGE_SIZE		4096

#define FRAME_MAGIC		0x33746573656e6f69ull

/* What the sender puts after the Ethernet header, padded to 16 bytes. */
struct frame {
	u8 ethernet[16];
	u64 magic;
	u64 nonce;
	u64 sequence;
	u64 sent_ns;
	u32 crc;
} __packed;

/**
 * struct ring - a receive ring and its reader
 * @nonce: of this run; a frame of another one is damaged
 * @active: set when the rest is filled in and the reader may start
 * @area: first byte of what the device may write: descriptors and buffers
 * @area_size: of all of it, in bytes
 * @descriptors: somewhere in @area, physically contiguous
 * @count: number of descriptors
 * @next: descriptor that the reader looks at next
 * @tail: what the device's tail should be: all before it may be written
 * @frames: frames seen
 * @sequence: of the frame that is expected next
 * @lost: frames missing, by their sequence numbers
 * @repeated: frames with a sequence number that was seen before
 * @damaged: frames that are not what was sent
 * @first_bad: sequence expected when the first frame was found bad
 * @page_pa: physical address of each page of @area
 */
struct ring {
	u64 nonce;
	u64 active;
	u64 area;
	u64 area_size;
	u64 descriptors;
	u32 count;
	u32 next;
	u32 tail;
	u32 unused;
	u64 frames;
	u64 sequence;
	u64 lost;
	u64 repeated;
	u64 damaged;
	u64 first_bad;
	u64 page_pa[];
};

static inline u64 ring_bytes(u32 count)
{
	return (u64)count * sizeof(union igb_rx_desc);
}

static inline u64 ring_area_size(u32 count)
{
	return ring_bytes(count) + (u64)count * RING_BUFFER_SIZE;
}

/* Buffers fill the area from its start on, and leave out the descriptors. */
static inline u64 ring_buffer(const struct ring *ring, u32 index)
{
	u64 offset = ring->area + (u64)index * RING_BUFFER_SIZE;

	return offset < ring->descriptors ? offset : offset + ring_bytes(ring->count);
}

static inline u64 ring_pa(const struct ring *ring, u64 offset)
{
	return ring->page_pa[(offset - ring->area) / RING_PAGE_SIZE] + offset % RING_PAGE_SIZE;
}

#endif
