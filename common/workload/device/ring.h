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

/* Receive descriptor tail, queue 0: the register through which a reader says what it has refilled. */
#define IGB_RDT0 0xc018

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

#define RING_PAGE_DESCRIPTORS	(RING_PAGE_SIZE / sizeof(union igb_rx_desc))
#define RING_PAGE_BUFFERS	(RING_PAGE_SIZE / RING_BUFFER_SIZE)

/* A page, by its place in the memory and by its physical one. */
struct ring_page {
	u32 page;
	u32 pfn;
};

/**
 * struct ring - a receive ring and its reader
 * @nonce: of this run; a frame of another one is damaged
 * @active: set when the rest is filled in and the reader may start
 * @area: first byte of what the device may write: descriptors and buffers
 * @count: number of descriptors
 * @next: descriptor that the reader looks at next
 * @tail: what the device's tail should be: all before it may be written
 * @descriptors_pfn: first page of the descriptors, which are one physical piece
 * @frames: frames seen
 * @sequence: of the frame that is expected next
 * @lost: frames missing, by their sequence numbers
 * @repeated: frames with a sequence number that was seen before
 * @damaged: frames that are not what was sent
 * @first_bad: sequence expected when the first frame was found bad
 * @left_behind: the kernel has no way to preserve the device, which is used all the same
 * @descriptor_page: where each page of the descriptors is in the memory: pages
 *	that follow each other physically seldom do so in a file
 * @buffer_page: the other pages of the area
 */
struct ring {
	u64 nonce;
	u64 active;
	u64 area;
	u32 count;
	u32 next;
	u32 tail;
	u32 descriptors_pfn;
	u64 frames;
	u64 sequence;
	u64 lost;
	u64 repeated;
	u64 damaged;
	u64 first_bad;
	u64 left_behind;
	u32 descriptor_page[RING_MAX / RING_PAGE_DESCRIPTORS];
	struct ring_page buffer_page[];
};

static inline u64 ring_descriptor_pages(u32 count)
{
	return count / RING_PAGE_DESCRIPTORS;
}

static inline u64 ring_area_size(u32 count)
{
	return ring_descriptor_pages(count) * RING_PAGE_SIZE + (u64)count * RING_BUFFER_SIZE;
}

static inline u64 ring_descriptors_pa(const struct ring *ring)
{
	return (u64)ring->descriptors_pfn * RING_PAGE_SIZE;
}

static inline u64 ring_descriptor(const struct ring *ring, u32 index)
{
	return (u64)ring->descriptor_page[index / RING_PAGE_DESCRIPTORS] * RING_PAGE_SIZE +
	       index % RING_PAGE_DESCRIPTORS * sizeof(union igb_rx_desc);
}

static inline u64 ring_buffer(const struct ring *ring, u32 index)
{
	return (u64)ring->buffer_page[index / RING_PAGE_BUFFERS].page * RING_PAGE_SIZE +
	       index % RING_PAGE_BUFFERS * RING_BUFFER_SIZE;
}

static inline u64 ring_buffer_pa(const struct ring *ring, u32 index)
{
	return (u64)ring->buffer_page[index / RING_PAGE_BUFFERS].pfn * RING_PAGE_SIZE +
	       index % RING_PAGE_BUFFERS * RING_BUFFER_SIZE;
}

#endif
