/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a workload does with a guest's RAM, whether our own VMM runs the guest
 * or another one. Sizes are bytes, counts and indices are pages of 4 KiB.
 */
#ifndef GUEST_RAM_H
#define GUEST_RAM_H

#include "guest.h"
#include "workload.h"

/* x86's: what a page table entry of the second level maps */
#define LARGE_PAGE_SIZE (2ull << 20)

/* guest_ram.c */
void allow_large_pages(void);
int memfd_new(const char *name, u64 size);
u8 *ram_map(int ram_fd, u64 size);
void ram_collapse(int ram_fd, u64 size, u64 from);
void ram_populate(u8 *ram, u64 size);
void ram_read_pfns(u8 *ram, u64 pages, u64 *pfns);

/* digest.c */
void digest_pages(const u8 *ram, u64 pages, u64 *digests);
u64 digest_words(const u64 *words, u64 count);

/* report_ram.c */
void report_ram_digest(const u64 *digests, u64 pages);
u64 count_different(const u64 *before, const u64 *after, u64 count);
void report_ram_difference(const u64 *before, const u64 *after, u64 pages);
void report_pfns(const u64 *pfns, u64 pages);
void report_pfn_difference(const u64 *before, const u64 *after, u64 pages);

#endif
