// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workload.h"

/* Enough to make holes all over free memory. */
#define HOG_SIZE (8ull << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define PAGE_SIZE 4096

/*
 * Moves what can be moved: half of the pages of a large piece of memory are
 * given back, and the kernel puts together what is left. Returns microseconds.
 */
u64 compact_memory(void)
{
	u8 *hog = mmap(NULL, HOG_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	u64 start = now_us();
	int fd;

	must_be(hog != MAP_FAILED, "%s", errno_name(-errno));
	for (u64 at = 0; at < HOG_SIZE; at += 2 * PAGE_SIZE)
		must(sys(madvise(hog + at, PAGE_SIZE, MADV_DONTNEED)));
	fd = must(sys(open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC)));
	must(sys(write(fd, "1", 1)));
	close(fd);
	must(sys(munmap(hog, HOG_SIZE)));
	return now_us() - start;
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
