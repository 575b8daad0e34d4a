// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of memfds that leave memory, and come back when they are asked for. They
 * go to a disk in RAM: the next kernel does not have it.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#include "guest_ram.h"
#include "memfd_swap.h"
#include "pattern.h"

#define DISK "/dev/ram0"
#define DISK_PAGES 4096

/* The first page of a swap area: union swap_header of include/linux/swap.h. */
struct swap_header {
	u8 boot[1024];
	u32 version;
	u32 last_page;
	u32 nr_badpages;
	u8 rest[PAGE_SIZE - 1024 - 3 * sizeof(u32) - 10];
	char magic[10];
} __attribute__((packed));

_Static_assert(sizeof(struct swap_header) == PAGE_SIZE, "a swap area's header is a page");

/* 0, or -errno of a kernel that has no such disk, or does not swap. */
int swap_on(void)
{
	struct swap_header header = { .version = 1, .last_page = DISK_PAGES - 1 };
	int fd = sys(open(DISK, O_RDWR | O_CLOEXEC));

	if (fd < 0)
		return fd;
	memcpy(header.magic, "SWAPSPACE2", sizeof(header.magic));
	must(sys(pwrite(fd, &header, sizeof(header), 0)));
	must(sys(fsync(fd)));
	close(fd);
	return sys(swapon(DISK, 0));
}

void swap_off(void)
{
	must(sys(swapoff(DISK)));
}

u64 swapped_pages(void)
{
	return (meminfo_kb("SwapTotal") - meminfo_kb("SwapFree")) * 1024 / PAGE_SIZE;
}

/* All pages of the file are in memory and mapped here; the kernel may keep some that it uses. */
void memfd_page_out(int fd, u64 size)
{
	u8 *memory;

	if (!size)
		return;
	memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	must(sys(madvise(memory, size, MADV_POPULATE_READ)));
	must(sys(madvise(memory, size, MADV_PAGEOUT)));
	must(sys(munmap(memory, size)));
}
