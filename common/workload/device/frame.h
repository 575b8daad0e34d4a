/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a frame is the one that was sent. For every reader of a ring, a guest
 * among them; the host's is common/dma/frames.py.
 */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>
#include <stddef.h>

#include "ring.h"

/* As zlib has it: reflected, polynomial 0x04c11db7. */
static inline u32 frame_crc32(const u8 *byte, u64 size)
{
	u32 crc = ~0u;

	while (size--) {
		crc ^= *byte++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* @length is what the device says it has written. */
static inline bool frame_is_whole(const struct frame *frame, u64 nonce, u16 length)
{
	const u64 start = offsetof(struct frame, magic);

	return length >= sizeof(*frame) && frame->magic == FRAME_MAGIC && frame->nonce == nonce &&
	       frame->crc == frame_crc32((const u8 *)frame + start,
					 offsetof(struct frame, crc) - start);
}

#endif
