/* SPDX-License-Identifier: GPL-2.0-only */
/* Content that tells which file, which page and which word of it it is, and of which run. */
#ifndef PATTERN_H
#define PATTERN_H

#include "workload.h"

#define PAGE_SIZE 4096

static inline u64 pattern_word(u64 seed, u64 offset)
{
	u64 word = (seed ^ offset) * 0x9e3779b97f4a7c15ull;

	/* Never 0: a page that is lost reads as zeros. */
	return (word ^ word >> 29) | 1;
}

/* Bytes from @offset on, a multiple of 8, into @size bytes, a multiple of 8 too. */
static inline void pattern_fill(void *buffer, u64 seed, u64 offset, u64 size)
{
	u64 *words = buffer;

	for (u64 i = 0; i < size / sizeof(u64); i++)
		words[i] = pattern_word(seed, offset + i * sizeof(u64));
}

#endif
