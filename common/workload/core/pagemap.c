// SPDX-License-Identifier: GPL-2.0-only
/* Physical page numbers of a mapping of this process. */
#include <fcntl.h>
#include <unistd.h>

#include "workload.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PM_PFN_MASK ((1ull << 55) - 1)
#define PM_PRESENT BIT_ULL(63)

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
