// SPDX-License-Identifier: GPL-2.0-only
/* The page frames of a mapping of this process: which they are, and how they come to be others. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workload.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PM_PFN_MASK ((1ull << 55) - 1)
#define PM_PRESENT BIT_ULL(63)
/* include/linux/kernel-page-flags.h */
#define KPF_COMPOUND_TAIL 16
#define KPF_RESERVED 32

/* Enough to make holes all over free memory. */
#define HOG_SIZE (8ull << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define PAGE_SIZE 4096

/*
 * 0 and the PFN of each of @pages from @address on. -ENOENT when one of them
 * is not mapped, -EPERM when the kernel hides PFNs from this process.
 */
int pagemap_read(const void *address, size_t pages, u64 *pfns)
{
	size_t page_size = sysconf(_SC_PAGESIZE);
	off_t start = (size_t)address / page_size * sizeof(u64);
	size_t done = 0;
	int fd, ret = 0;

	fd = sys(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	if (fd < 0)
		return fd;

	while (done < pages * sizeof(u64)) {
		ssize_t got = sys(pread(fd, (char *)pfns + done, pages * sizeof(u64) - done,
					start + done));

		if (got <= 0) {
			ret = got ?: -EIO;
			goto out_close;
		}
		done += got;
	}

	for (size_t page = 0; page < pages; page++) {
		if (!(pfns[page] & PM_PRESENT)) {
			ret = -ENOENT;
			goto out_close;
		}
		pfns[page] &= PM_PFN_MASK;
		if (!pfns[page]) {
			ret = -EPERM;
			goto out_close;
		}
	}

out_close:
	close(fd);
	return ret;
}

/* Whether the kernel has taken the page at @address out of use for good; or an error. */
int page_is_reserved(u64 address)
{
	int fd = sys(open("/proc/kpageflags", O_RDONLY | O_CLOEXEC));
	ssize_t got;
	u64 flags;

	if (fd < 0)
		return fd;
	got = sys(pread(fd, &flags, sizeof(flags), address / sysconf(_SC_PAGESIZE) * sizeof(flags)));
	close(fd);
	if (got != sizeof(flags))
		return got < 0 ? got : -EIO;
	return !!(flags & BIT_ULL(KPF_RESERVED));
}

/* How many folios @size bytes of memory are: a large one is pinned as a whole, and once. */
u64 folios_of(const void *memory, u64 size)
{
	int fd = must(sys(open("/proc/kpageflags", O_RDONLY | O_CLOEXEC)));
	size_t pages = size / PAGE_SIZE;
	u64 *pfns = must_be_memory(calloc(pages, sizeof(u64))), flags, folios = 0;

	for (size_t page = 0; page < pages; page++)
		(void)READ_ONCE(((const u8 *)memory)[page * PAGE_SIZE]);
	must(pagemap_read(memory, pages, pfns));
	for (size_t page = 0; page < pages; page++) {
		must(sys(pread(fd, &flags, sizeof(flags), pfns[page] * sizeof(flags))));
		folios += !(flags & BIT_ULL(KPF_COMPOUND_TAIL));
	}
	free(pfns);
	close(fd);
	return folios;
}

/* What each CPU counts by itself is added up; mm/vmstat.c */
void refresh_counters(void)
{
	write_to("/proc/sys/vm/stat_refresh", "1");
}

/* Of /proc/vmstat; 0 where the kernel does not count that. */
static long long vmstat(const char *name)
{
	unsigned long long value = 0, found;
	char line[128], key[64];
	FILE *file = fopen("/proc/vmstat", "re");

	must_be(file, "/proc/vmstat cannot be read");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %llu", key, &found) == 2 && !strcmp(key, name))
			value = found;
	fclose(file);
	return value;
}

/* Pages that are pinned. */
long long pinned_pages(void)
{
	return vmstat("nr_foll_pin_acquired") - vmstat("nr_foll_pin_released");
}

/* Page tables, root and context tables of all devices. */
long long iommu_pages(void)
{
	return vmstat("nr_iommu_pages");
}

/*
 * Areas by who made them: 0xADDRESS-0xADDRESS SIZE CALLER+0x.../0x... ... Where
 * the compiler makes no sibling calls, as with arm64's frame pointers, the caller
 * of an array is the allocator itself.
 */
unsigned int handover_areas(void)
{
	unsigned int count = 0;
	char line[512];
	FILE *file = fopen("/proc/vmallocinfo", "re");

	must_be(file, "/proc/vmallocinfo cannot be read");
	while (fgets(line, sizeof(line), file))
		count += strstr(line, "memfd_luo") || strstr(line, " kho_") ||
			 strstr(line, " __vmalloc_array_noprof");
	fclose(file);
	return count;
}

/*
 * Moves what can be moved: half of the pages of a large piece of memory are
 * given back, and the kernel puts together what is left.
 */
void compact_memory(void)
{
	u8 *hog = mmap(NULL, HOG_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int fd;

	must_be(hog != MAP_FAILED, "%s", errno_name(-errno));
	for (u64 at = 0; at < HOG_SIZE; at += 2 * PAGE_SIZE)
		must(sys(madvise(hog + at, PAGE_SIZE, MADV_DONTNEED)));
	fd = must(sys(open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC)));
	must(sys(write(fd, "1", 1)));
	close(fd);
	must(sys(munmap(hog, HOG_SIZE)));
}

/*
 * What khugepaged does to memory in small pages: it copies it into a large one.
 * Compaction only moves what it finds a place for at higher addresses. Returns
 * 0, or -errno of the first piece that had to stay where it is.
 */
int collapse_memory(void *memory, u64 size)
{
	return sys(madvise(memory, size, MADV_COLLAPSE));
}
