// SPDX-License-Identifier: GPL-2.0-only
#include <sys/ioctl.h>

#include <linux/iommufd.h>
#if __has_include(<linux/iommufd_liveupdate.h>)
#include <linux/iommufd_liveupdate.h>
#define HAS_LIVEUPDATE 1
#else
#define HAS_LIVEUPDATE 0
#endif
#include <linux/vfio.h>

#include "hwpt.h"

int iommufd_hwpt_alloc(int iommufd, u32 dev_id, u32 ioas)
{
	struct iommu_hwpt_alloc arg = { .size = sizeof(arg), .dev_id = dev_id, .pt_id = ioas };
	int ret;

	ret = sys(ioctl(iommufd, IOMMU_HWPT_ALLOC, &arg));
	return ret < 0 ? ret : (int)arg.out_hwpt_id;
}

/* -ENOTTY from a kernel that cannot hand over any HWPT, or whose headers know of none. */
int iommufd_hwpt_mark(int iommufd, u32 hwpt, u64 token)
{
#if HAS_LIVEUPDATE
	struct iommu_hwpt_liveupdate_mark_preserve arg = {
		.size = sizeof(arg),
		.hwpt_id = hwpt,
		.hwpt_token = token,
	};

	return sys(ioctl(iommufd, IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE, &arg));
#else
	(void)iommufd, (void)hwpt, (void)token;
	return -ENOTTY;
#endif
}

/* As iommufd_map_file(), but the device may not write there. */
int iommufd_map_file_read_only(int iommufd, u32 ioas, int fd, u64 start, u64 length, u64 iova)
{
	struct iommu_ioas_map_file arg = {
		.size = sizeof(arg),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.ioas_id = ioas,
		.fd = fd,
		.start = start,
		.length = length,
		.iova = iova,
	};

	return sys(ioctl(iommufd, IOMMU_IOAS_MAP_FILE, &arg));
}

/* What is mapped at @from, mapped at @to as well. */
int iommufd_disable_large_pages(int iommufd, u32 ioas)
{
	struct iommu_option arg = {
		.size = sizeof(arg),
		.option_id = IOMMU_OPTION_HUGE_PAGES,
		.op = IOMMU_OPTION_OP_SET,
		.object_id = ioas,
		.val64 = 0,
	};

	return sys(ioctl(iommufd, IOMMU_OPTION, &arg));
}

int iommufd_copy(int iommufd, u32 ioas, u64 from, u64 length, u64 to)
{
	struct iommu_ioas_copy arg = {
		.size = sizeof(arg),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.dst_ioas_id = ioas,
		.src_ioas_id = ioas,
		.length = length,
		.dst_iova = to,
		.src_iova = from,
	};

	return sys(ioctl(iommufd, IOMMU_IOAS_COPY, &arg));
}

#if HAS_LIVEUPDATE
static struct iommu_hwpt_liveupdate_restore restore_arg(u32 dev_id, u32 ioas, u64 token)
{
	return (struct iommu_hwpt_liveupdate_restore) {
		.size = sizeof(struct iommu_hwpt_liveupdate_restore),
		.dev_id = dev_id,
		.ioas_id = ioas,
		.hwpt_token = token,
	};
}
#endif

/* The id of the HWPT, or -errno. */
int iommufd_hwpt_restore(int iommufd, u32 dev_id, u32 ioas, u64 token)
{
#if HAS_LIVEUPDATE
	struct iommu_hwpt_liveupdate_restore arg = restore_arg(dev_id, ioas, token);
	int ret;

	ret = sys(ioctl(iommufd, IOMMU_HWPT_LIVEUPDATE_RESTORE, &arg));
	return ret < 0 ? ret : (int)arg.out_hwpt_id;
#else
	(void)iommufd, (void)dev_id, (void)ioas, (void)token;
	return -ENOTTY;
#endif
}

/* The same where the answer cannot be written. */
int iommufd_hwpt_restore_unanswered(int iommufd, u32 dev_id, u32 ioas, u64 token)
{
#if HAS_LIVEUPDATE
	struct iommu_hwpt_liveupdate_restore arg = restore_arg(dev_id, ioas, token);

	return ioctl_read_only(iommufd, IOMMU_HWPT_LIVEUPDATE_RESTORE, &arg, sizeof(arg));
#else
	(void)iommufd, (void)dev_id, (void)ioas, (void)token;
	return -ENOTTY;
#endif
}

int iommufd_destroy(int iommufd, u32 id)
{
	struct iommu_destroy arg = { .size = sizeof(arg), .id = id };

	return sys(ioctl(iommufd, IOMMU_DESTROY, &arg));
}

/* @pt_id: of an IOAS; on return, of the HWPT that iommufd has made for it. */
int vfio_attach_ioas(int device, u32 *pt_id)
{
	struct vfio_device_attach_iommufd_pt arg = { .argsz = sizeof(arg), .pt_id = *pt_id };
	int ret;

	ret = sys(ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &arg));
	*pt_id = arg.pt_id;
	return ret;
}

int vfio_bind_id(int device, int iommufd, u32 *dev_id)
{
	struct vfio_device_bind_iommufd arg = { .argsz = sizeof(arg), .iommufd = iommufd };
	int ret;

	ret = sys(ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &arg));
	*dev_id = arg.out_devid;
	return ret;
}
