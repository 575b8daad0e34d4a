// SPDX-License-Identifier: GPL-2.0-only
/*
 * Most of the guest's RAM, verified page by page and written anew with the next
 * version. A page begins with the nonce, its number and its version; the rest
 * of it depends on all three.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tasks.h"

#define PAGE_WORDS (PAGE_SIZE / sizeof(u64))
#define HEAD_WORDS 3
/* What the other processes and the page cache may still want. */
#define RESERVE_KB (12ul << 10)
/* For the frames of a whole ring, when nobody has read them yet. */
#define NIC_RESERVE_KB (16ul << 10)

static u64 seed(u64 page, u64 version)
{
	return mix(shared->nonce ^ mix(page) ^ mix(version + (1ull << 40)));
}

static void write_page(u64 *words, u64 page, u64 version)
{
	words[0] = shared->nonce;
	words[1] = page;
	words[2] = version;
	fill_pattern(words + HEAD_WORDS, PAGE_WORDS - HEAD_WORDS, seed(page, version));
}

static void verify_page(const u64 *words, u64 page, u64 version)
{
	size_t body = PAGE_WORDS - HEAD_WORDS;
	size_t at = first_difference(words + HEAD_WORDS, body, seed(page, version));

	if (words[0] != shared->nonce || words[1] != page || words[2] != version)
		fault(&shared->checker.faults,
		      "page %llu of version %llu says %016llx, page %llu, version %llu", page,
		      version, words[0], words[1], words[2]);
	else if (at < body)
		fault(&shared->checker.faults, "page %llu of version %llu differs in word %zu",
		      page, version, at + HEAD_WORDS);
}

static u64 available_kb(void)
{
	unsigned long long kb = 0;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
			break;
	if (file)
		fclose(file);
	return kb;
}

void check_memory(void)
{
	struct checker *own = &shared->checker;
	u64 reserve = RESERVE_KB + (nic_present() ? NIC_RESERVE_KB : 0);
	u64 kb = available_kb(), pages, *ram;

	if (kb < 2 * reserve)
		die("only %llu kB are available", kb);
	pages = (kb - reserve) / 10 * 9 * 1024 / PAGE_SIZE;
	ram = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (ram == MAP_FAILED)
		die("no %llu pages", pages);
	for (u64 page = 0; page < pages; page++)
		write_page(ram + page * PAGE_WORDS, page, 0);
	own->pages = pages;
	for (own->version = 1;; own->version++) {
		for (u64 page = 0; page < pages; page++) {
			verify_page(ram + page * PAGE_WORDS, page, own->version - 1);
			write_page(ram + page * PAGE_WORDS, page, own->version);
			own->steps++;
		}
	}
}
