// SPDX-License-Identifier: GPL-2.0-only
#include <sys/ioctl.h>

#include <linux/iommufd.h>
#include <linux/iommufd_liveupdate.h>
#include <linux/vfio.h>

#include "hwpt.h"

int iommufd_hwpt_alloc(int iommufd, u32 dev_id, u32 ioas)
{
	struct iommu_hwpt_alloc arg = { .size = sizeof(arg), .dev_id = dev_id, .pt_id = ioas };
	int ret;

	ret = sys(ioctl(iommufd, IOMMU_HWPT_ALLOC, &arg));
	return ret < 0 ? ret : (int)arg.out_hwpt_id;
}

int iommufd_hwpt_mark(int iommufd, u32 hwpt, u64 token)
{
	struct iommu_hwpt_liveupdate_mark_preserve arg = {
		.size = sizeof(arg),
		.hwpt_id = hwpt,
		.hwpt_token = token,
	};

	return sys(ioctl(iommufd, IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE, &arg));
}

/* The id of the HWPT, or -errno. */
int iommufd_hwpt_restore(int iommufd, u32 dev_id, u32 ioas, u64 token)
{
	struct iommu_hwpt_liveupdate_restore arg = {
		.size = sizeof(arg),
		.dev_id = dev_id,
		.ioas_id = ioas,
		.hwpt_token = token,
	};
	int ret;

	ret = sys(ioctl(iommufd, IOMMU_HWPT_LIVEUPDATE_RESTORE, &arg));
	return ret < 0 ? ret : (int)arg.out_hwpt_id;
}

int iommufd_destroy(int iommufd, u32 id)
{
	struct iommu_destroy arg = { .size = sizeof(arg), .id = id };

	return sys(ioctl(iommufd, IOMMU_DESTROY, &arg));
}

int vfio_bind_id(int device, int iommufd, u32 *dev_id)
{
	struct vfio_device_bind_iommufd arg = { .argsz = sizeof(arg), .iommufd = iommufd };
	int ret;

	ret = sys(ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &arg));
	*dev_id = arg.out_devid;
	return ret;
}
