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

/* A page: a word that tells which one, and counted on from it, as is cheap on an emulated CPU. */
static inline void pattern_page(void *buffer, u64 seed, u64 page)
{
	u64 word = pattern_word(seed, page), *words = buffer;

	for (unsigned int i = 0; i < PAGE_SIZE / sizeof(u64); i++, word += 0x100000002ull)
		words[i] = word;
}

#endif
