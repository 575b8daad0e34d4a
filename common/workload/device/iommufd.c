// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/iommufd.h>

#include "iommufd.h"

#define MAP_FLAGS (IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

#define ALLOW_UNSAFE "/sys/module/iommufd/parameters/allow_unsafe_interrupts"

/* Where the machine does not remap interrupts no device is isolated, and iommufd takes none. */
void iommufd_allow_no_remapping(void)
{
	int fd;

	if (param_u64("intremap", 0))
		return;
	fd = must(sys(open(ALLOW_UNSAFE, O_WRONLY | O_CLOEXEC)));
	must(sys(write(fd, "Y", 1)));
	close(fd);
}

int iommufd_open(void)
{
	return sys(open("/dev/iommu", O_RDWR | O_CLOEXEC));
}

int iommufd_ioas_alloc(int iommufd)
{
	struct iommu_ioas_alloc arg = { .size = sizeof(arg) };
	int ret;

	ret = sys(ioctl(iommufd, IOMMU_IOAS_ALLOC, &arg));
	return ret < 0 ? ret : (int)arg.out_ioas_id;
}

int iommufd_map_file(int iommufd, u32 ioas, int fd, u64 start, u64 length, u64 iova)
{
	struct iommu_ioas_map_file arg = {
		.size = sizeof(arg),
		.flags = MAP_FLAGS,
		.ioas_id = ioas,
		.fd = fd,
		.start = start,
		.length = length,
		.iova = iova,
	};

	return sys(ioctl(iommufd, IOMMU_IOAS_MAP_FILE, &arg));
}

int iommufd_map_memory(int iommufd, u32 ioas, void *memory, u64 length, u64 iova)
{
	struct iommu_ioas_map arg = {
		.size = sizeof(arg),
		.flags = MAP_FLAGS,
		.ioas_id = ioas,
		.user_va = (unsigned long)memory,
		.length = length,
		.iova = iova,
	};

	return sys(ioctl(iommufd, IOMMU_IOAS_MAP, &arg));
}

int iommufd_unmap(int iommufd, u32 ioas, u64 iova, u64 length)
{
	struct iommu_ioas_unmap arg = {
		.size = sizeof(arg),
		.ioas_id = ioas,
		.iova = iova,
		.length = length,
	};

	return sys(ioctl(iommufd, IOMMU_IOAS_UNMAP, &arg));
}

/* @length: at most so many bytes; on return, how many are contiguous at @pa. */
int iommufd_get_pa(int iommufd, u32 ioas, u64 iova, u64 *length, u64 *pa)
{
	struct iommu_ioas_noiommu_get_pa arg = {
		.size = sizeof(arg),
		.ioas_id = ioas,
		.iova = iova,
		.length = *length,
	};
	int ret;

	ret = sys(ioctl(iommufd, IOMMU_IOAS_NOIOMMU_GET_PA, &arg));
	*length = arg.length;
	*pa = arg.out_phys;
	return ret;
}
