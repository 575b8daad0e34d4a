/* SPDX-License-Identifier: GPL-2.0-only */
/* Page tables of hardware, and what the live update of iommufd adds to them. */
#ifndef HWPT_H
#define HWPT_H

#include "workload.h"

int iommufd_hwpt_alloc(int iommufd, u32 dev_id, u32 ioas);
int iommufd_hwpt_mark(int iommufd, u32 hwpt, u64 token);
int iommufd_hwpt_restore(int iommufd, u32 dev_id, u32 ioas, u64 token);
int iommufd_destroy(int iommufd, u32 id);
int vfio_bind_id(int device, int iommufd, u32 *dev_id);

#endif
