// SPDX-License-Identifier: GPL-2.0-only
/* A guest's RAM, whoever runs the guest: a memfd, its mapping, and where its pages are. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest_ram.h"
#include "parallel.h"

#define COLLAPSE_MS 10000

/* madvise() is to decide about large pages of memfds; without them there is no such file. */
void allow_large_pages(void)
{
	int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	must(sys(write(fd, "advise", 6)));
	close(fd);
}

int memfd_new(const char *name, u64 size)
{
	int fd = must(sys(memfd_create(name, MFD_CLOEXEC)));

	must(sys(ftruncate(fd, size)));
	return fd;
}

/* The RAM memfd, at an address where large pages of it can be mapped as such. */
u8 *ram_map(int ram_fd, u64 size)
{
	u8 *space = mmap(NULL, size + LARGE_PAGE_SIZE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	u8 *ram;

	must_be(space != MAP_FAILED, "%llu bytes: %s", size, errno_name(-errno));
	ram = (u8 *)(((u64)space + LARGE_PAGE_SIZE - 1) & ~(LARGE_PAGE_SIZE - 1));
	ram = mmap(ram, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ram_fd, 0);
	must_be(ram != MAP_FAILED, "%llu bytes: %s", size, errno_name(-errno));
	/* EINVAL is a kernel without large pages, which will do. */
	madvise(ram, size, MADV_HUGEPAGE);
	return ram;
}

/*
 * Copies the pages of the file into large folios, from offset @from on; there may be no room for
 * them at once.
 */
void ram_collapse(int ram_fd, u64 size, u64 from)
{
	struct deadline deadline = deadline_in_ms(COLLAPSE_MS);
	u8 *ram = ram_map(ram_fd, size);
	int ret = collapse_memory(ram + from, size - from);

	while (ret < 0 && !deadline_passed(deadline)) {
		compact_memory();
		ret = collapse_memory(ram + from, size - from);
	}
	must(ret);
	must(sys(munmap(ram, size)));
}

static void populate_range(void *ram, u64 first, u64 end)
{
	must(sys(madvise((u8 *)ram + first * GUEST_PAGE_SIZE, (end - first) * GUEST_PAGE_SIZE,
			 MADV_POPULATE_WRITE)));
}

/*
 * Every page is there, and writable in this process' page tables: KVM maps a
 * page writable before the guest writes to it only if it is so here.
 */
void ram_populate(u8 *ram, u64 size)
{
	parallel_pages(populate_range, ram, size / GUEST_PAGE_SIZE);
}

/*
 * A page that is just being moved has no PFN, and a large one may have to be
 * mapped anew after it; both are put right by an access.
 */
void ram_read_pfns(u8 *ram, u64 pages, u64 *pfns)
{
	struct deadline deadline = deadline_in_ms(10000);
	int ret = pagemap_read(ram, pages, pfns);

	while (ret == -ENOENT && !deadline_passed(deadline)) {
		must(sys(madvise(ram, pages * GUEST_PAGE_SIZE, MADV_POPULATE_READ)));
		ret = pagemap_read(ram, pages, pfns);
	}
	must(ret);
}
