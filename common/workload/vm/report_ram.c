// SPDX-License-Identifier: GPL-2.0-only
/* The facts about a guest's RAM: what is in its pages, and where they are. */
#include <stdio.h>

#include "guest_ram.h"

#define RAM_RANGES 64
#define MAX_EXTENTS 4096

static void numbered_fact(const char *name, u64 number, const char *value)
{
	char key[64];

	snprintf(key, sizeof(key), "%s.%llu", name, number);
	fact(key, "%s", value);
}

void report_ram_digest(const u64 *digests, u64 pages)
{
	char value[32];

	fact("ram.digest", "%016llx", digest_words(digests, pages));
	for (u64 range = 0; range < RAM_RANGES; range++) {
		u64 first = pages * range / RAM_RANGES, end = pages * (range + 1) / RAM_RANGES;

		snprintf(value, sizeof(value), "%016llx",
			 digest_words(digests + first, end - first));
		numbered_fact("ram.range", range, value);
	}
}

/* Number of words that differ; @first is the first of them. */
static u64 compare(const u64 *before, const u64 *after, u64 count, u64 *first)
{
	u64 different = 0;

	for (u64 i = 0; i < count; i++) {
		if (before[i] == after[i])
			continue;
		if (!different++)
			*first = i;
	}
	return different;
}

u64 count_different(const u64 *before, const u64 *after, u64 count)
{
	u64 first = 0;

	return compare(before, after, count, &first);
}

void report_ram_difference(const u64 *before, const u64 *after, u64 pages)
{
	u64 first = 0, different = compare(before, after, pages, &first);

	fact("ram.pages_different", "%llu", different);
	if (different)
		fact("ram.first_different", "page %llu", first);
}

/* Runs of pages that are next to each other in the guest and in the machine. */
void report_pfns(const u64 *pfns, u64 pages)
{
	u64 extents = 0, first = 0;
	char value[96];

	for (u64 page = 1; page <= pages; page++) {
		if (page < pages && pfns[page] == pfns[page - 1] + 1)
			continue;
		if (extents < MAX_EXTENTS) {
			snprintf(value, sizeof(value), "%llu:%llu:%llu", first, pfns[first],
				 page - first);
			numbered_fact("pfn.extent", extents, value);
		}
		extents++;
		first = page;
	}
	fact("pfn.extents", "%llu", extents);
}

void report_pfn_difference(const u64 *before, const u64 *after, u64 pages)
{
	u64 first = 0, moved = compare(before, after, pages, &first);

	fact("pfn.moved", "%llu", moved);
	if (moved)
		fact("pfn.first_moved", "page %llu was %llu is %llu", first, before[first],
		     after[first]);
}
