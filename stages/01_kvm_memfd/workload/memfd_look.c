// SPDX-License-Identifier: GPL-2.0-only
/* Making and looking at one memfd; see memfd_states.c. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest_ram.h"
#include "memfd_look.h"

/* include/uapi/linux/kernel-page-flags.h */
#define KPF_LOCKED 0
#define KPF_UPTODATE 3
#define KPF_DIRTY 4
#define KPF_LRU 5
#define KPF_SWAPBACKED 14
#define KPF_COMPOUND_HEAD 15
#define KPF_COMPOUND_TAIL 16

#define LARGE_PAGES "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static bool page_is_in(enum pages pages, u64 page)
{
	return pages == ALL_PAGES || (pages == EVEN_PAGES && !(page & 1)) ||
	       (pages == ODD_PAGES && page & 1);
}

static u64 page_count(u64 size)
{
	return (size + PAGE_SIZE - 1) / PAGE_SIZE;
}

/* Bytes of @page that are inside the file. */
static u64 page_bytes(u64 size, u64 page)
{
	return size - page * PAGE_SIZE < PAGE_SIZE ? size - page * PAGE_SIZE : PAGE_SIZE;
}

void memfd_write(int fd, const struct memfd_state *state, enum pages pages, u64 seed)
{
	u64 buffer[PAGE_SIZE / sizeof(u64)];

	for (u64 page = 0; page < page_count(state->size); page++) {
		if (!page_is_in(pages, page))
			continue;
		pattern_page(buffer, seed, page);
		must(sys(pwrite(fd, buffer, page_bytes(state->size, page), page * PAGE_SIZE)));
	}
}

static u8 *map(int fd, u64 size, int protection)
{
	u8 *memory = mmap(NULL, size, protection, MAP_SHARED, fd, 0);

	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	return memory;
}

void memfd_write_mapped(int fd, const struct memfd_state *state, u64 seed)
{
	u8 *memory = map(fd, state->size, PROT_READ | PROT_WRITE);

	for (u64 page = 0; page < page_count(state->size); page++)
		if (page_is_in(state->late, page))
			pattern_page(memory + page * PAGE_SIZE, seed, page);
	if (!state->stays_mapped)
		must(sys(munmap(memory, state->size)));
}

/* Reads each page through a mapping: it is there then, and clean. */
void memfd_touch(int fd, u64 size)
{
	u8 *memory = map(fd, size, PROT_READ);

	must(sys(madvise(memory, size, MADV_POPULATE_READ)));
	must(sys(munmap(memory, size)));
}

/*
 * With "within_size" a file of less than a large page gets the largest folios
 * that fit into it. Afterwards large pages are as they were: of the words of the
 * file the one in brackets. Without the file there are small folios only.
 */
void memfd_medium_folios(bool on)
{
	static char before[128];
	char *word, *end;
	int fd = open(LARGE_PAGES, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	if (on) {
		ssize_t len = must(sys(pread(fd, before, sizeof(before) - 1, 0)));

		before[len] = '\0';
		must(sys(write(fd, "within_size", 11)));
	} else {
		word = strchr(before, '[');
		end = word ? strchr(word, ']') : NULL;
		must_be(end, "%s: %s", LARGE_PAGES, before);
		must(sys(write(fd, word + 1, end - word - 1)));
	}
	close(fd);
}

/* Control file-copied: the same content in another file. */
int memfd_copy(int fd)
{
	int copy = must(sys(memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
	char buffer[PAGE_SIZE];
	ssize_t got;
	off_t at = 0;

	while ((got = must(sys(pread(fd, buffer, sizeof(buffer), at)))) > 0) {
		must(sys(pwrite(copy, buffer, got, at)));
		at += got;
	}
	close(fd);
	return copy;
}

/* What a page of the file has to hold, zeros where nothing was written. */
static void expected_page(const struct memfd_state *state, u64 seed, u64 page, u64 *buffer)
{
	memset(buffer, 0, PAGE_SIZE);
	if (page_is_in(state->late, page))
		pattern_page(buffer, seed + LATE, page);
	else if (page_is_in(state->early, page))
		pattern_page(buffer, seed, page);
	memset((u8 *)buffer + page_bytes(state->size, page), 0,
	       PAGE_SIZE - page_bytes(state->size, page));
}

/* Depends on the value and the place of each word; nobody means to deceive it. */
static u64 add_digest(u64 digest, const u64 *page)
{
	for (unsigned int i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		digest = (digest << 7 | digest >> 57) + page[i];
	return digest;
}

u64 memfd_expected_digest(const struct memfd_state *state, u64 seed)
{
	u64 buffer[PAGE_SIZE / sizeof(u64)], digest = 0;

	for (u64 page = 0; page < page_count(state->size); page++) {
		expected_page(state, seed, page, buffer);
		digest = add_digest(digest, buffer);
	}
	return digest;
}

void memfd_look(int fd, struct memfd_look *look)
{
	struct stat stat;

	*look = (struct memfd_look){ .first_wrong = -1ull };
	must(sys(fstat(fd, &stat)));
	look->size = stat.st_size;
	look->blocks = stat.st_blocks;
	look->mode = stat.st_mode & 07777;
	look->position = must(sys(lseek(fd, 0, SEEK_CUR)));
	look->seals = must(sys(fcntl(fd, F_GET_SEALS)));
	look->flags = must(sys(fcntl(fd, F_GETFL)));
	look->close_on_exec = must(sys(fcntl(fd, F_GETFD))) & FD_CLOEXEC;
}

static void compare_page(const u8 *expected, const u8 *seen, u64 offset, struct memfd_look *look)
{
	if (!memcmp(expected, seen, PAGE_SIZE))
		return;
	for (unsigned int i = 0; i < PAGE_SIZE; i++) {
		if (expected[i] == seen[i])
			continue;
		if (!look->wrong++)
			look->first_wrong = offset + i;
		look->zeros += !seen[i];
	}
}

/* The file is read, and by read(): a page that was never up to date is zeroed by it. */
void memfd_compare(int fd, const struct memfd_state *state, u64 seed, struct memfd_look *look)
{
	u64 expected[PAGE_SIZE / sizeof(u64)], seen[PAGE_SIZE / sizeof(u64)];

	for (u64 page = 0; page < page_count(state->size); page++) {
		memset(seen, 0, sizeof(seen));
		must(sys(pread(fd, seen, page_bytes(state->size, page), page * PAGE_SIZE)));
		expected_page(state, seed, page, expected);
		look->digest = add_digest(look->digest, seen);
		compare_page((u8 *)expected, (u8 *)seen, page * PAGE_SIZE, look);
	}
}

/* Bytes that are wrong now and were not before; what reads the same is not looked at twice. */
void memfd_compare_again(int fd, const struct memfd_state *state, u64 seed,
			 struct memfd_look *look)
{
	u64 seen[PAGE_SIZE / sizeof(u64)], digest = 0;
	struct memfd_look again = {};

	for (u64 page = 0; page < page_count(state->size); page++) {
		memset(seen, 0, sizeof(seen));
		must(sys(pread(fd, seen, page_bytes(state->size, page), page * PAGE_SIZE)));
		digest = add_digest(digest, seen);
	}
	if (digest == look->digest)
		return;
	memfd_compare(fd, state, seed, &again);
	look->lost = again.wrong > look->wrong ? again.wrong - look->wrong : 0;
}

static void note_page(int kpageflags, u64 pfn, struct memfd_look *look)
{
	u64 flags;

	must(sys(pread(kpageflags, &flags, sizeof(flags), pfn * sizeof(flags))));
	look->compound += !!(flags & (BIT(KPF_COMPOUND_HEAD) | BIT(KPF_COMPOUND_TAIL)));
	/* All but the first page of a large folio have no such flags of their own. */
	if (flags & BIT(KPF_COMPOUND_TAIL))
		return;
	look->faults.locked += !!(flags & BIT(KPF_LOCKED));
	look->faults.not_uptodate += !(flags & BIT(KPF_UPTODATE));
	look->faults.not_dirty += !(flags & BIT(KPF_DIRTY));
	look->faults.not_lru += !(flags & BIT(KPF_LRU));
	look->faults.not_swapbacked += !(flags & BIT(KPF_SWAPBACKED));
}

static void add_extent(struct memfd_look *look, u64 pfn)
{
	unsigned int last = look->nr_extents - 1;

	if (look->nr_extents && look->extents[last].pfn + look->extents[last].count == pfn) {
		look->extents[last].count++;
	} else if (look->nr_extents < MAX_EXTENTS) {
		look->extents[last + 1].pfn = pfn;
		look->extents[last + 1].count = 1;
		look->nr_extents++;
	}
}

/* Where the pages are, and what the kernel's flags say of them (fs/proc/page.c). */
void memfd_frames(int fd, struct memfd_look *look)
{
	u64 pages = page_count(look->size), *pfns;
	int kpageflags;
	u8 *memory;

	if (!pages)
		return;
	kpageflags = must(sys(open("/proc/kpageflags", O_RDONLY | O_CLOEXEC)));
	pfns = must_be_memory(calloc(pages, sizeof(u64)));
	memory = map(fd, look->size, PROT_READ);
	must(sys(madvise(memory, pages * PAGE_SIZE, MADV_POPULATE_READ)));
	ram_read_pfns(memory, pages, pfns);
	for (u64 page = 0; page < pages; page++) {
		add_extent(look, pfns[page]);
		note_page(kpageflags, pfns[page], look);
	}
	must(sys(munmap(memory, look->size)));
	free(pfns);
	close(kpageflags);
}

static void note_may(struct memfd_look *look, long ret, const char *what)
{
	size_t len = strlen(look->may);

	if (ret >= 0)
		snprintf(look->may + len, sizeof(look->may) - len, "%s%s", len ? "," : "", what);
}

/* What seals forbid, tried; what is not forbidden has to work. Changes the file. */
void memfd_try(int fd, struct memfd_look *look)
{
	void *memory;

	memory = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	note_may(look, memory == MAP_FAILED ? -errno : 0, "map");
	if (memory != MAP_FAILED)
		must(sys(munmap(memory, PAGE_SIZE)));
	if (look->size)
		note_may(look, sys(pwrite(fd, "x", 1, 0)), "write");
	note_may(look, sys(ftruncate(fd, look->size + PAGE_SIZE)), "grow");
	if (look->size)
		note_may(look, sys(ftruncate(fd, look->size - 1)), "shrink");
	note_may(look, sys(fchmod(fd, 0600)), "chmod");
	note_may(look, sys(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL)), "seal");
}

static void say_frames(const char *name, const struct memfd_look *look)
{
	char key[64], value[MAX_EXTENTS * 24];
	size_t len = 0;

	value[0] = '\0';
	for (unsigned int i = 0; i < look->nr_extents; i++)
		len += snprintf(value + len, sizeof(value) - len, "%s%llu:%llu", i ? "," : "",
				look->extents[i].pfn, look->extents[i].count);
	snprintf(key, sizeof(key), "frames.%s", name);
	fact(key, "%s", value);
}

/* One line of words for a file, another for its page frames. */
void memfd_say(const struct memfd_state *state, const struct memfd_look *look)
{
	const struct page_faults *faults = &look->faults;
	char key[64];

	snprintf(key, sizeof(key), "file.%s", state->name);
	if (look->error < 0) {
		fact(key, "error=%d", look->error);
		return;
	}
	fact(key, "size=%llu blocks=%llu position=%llu seals=%#x flags=%#x cloexec=%u mode=%o"
	     " digest=%016llx wrong=%llu zeros=%llu first=%lld lost=%llu compound=%u locked=%u"
	     " not-uptodate=%u not-dirty=%u not-lru=%u not-swapbacked=%u may=%s",
	     look->size, look->blocks, look->position, look->seals, look->flags,
	     look->close_on_exec, look->mode, look->digest, look->wrong, look->zeros,
	     (long long)look->first_wrong, look->lost, look->compound, faults->locked,
	     faults->not_uptodate, faults->not_dirty, faults->not_lru, faults->not_swapbacked,
	     look->may);
	say_frames(state->name, look);
}
