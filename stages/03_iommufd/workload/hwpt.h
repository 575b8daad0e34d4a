/* SPDX-License-Identifier: GPL-2.0-only */
/* Page tables of hardware, and what the live update of iommufd adds to them. */
#ifndef HWPT_H
#define HWPT_H

#include "workload.h"

int iommufd_hwpt_alloc(int iommufd, u32 dev_id, u32 ioas);
int iommufd_hwpt_mark(int iommufd, u32 hwpt, u64 token);
int iommufd_map_file_read_only(int iommufd, u32 ioas, int fd, u64 start, u64 length, u64 iova);
int iommufd_disable_large_pages(int iommufd, u32 ioas);
int iommufd_copy(int iommufd, u32 ioas, u64 from, u64 length, u64 to);
int iommufd_hwpt_restore(int iommufd, u32 dev_id, u32 ioas, u64 token);
int iommufd_hwpt_restore_unanswered(int iommufd, u32 dev_id, u32 ioas, u64 token);
int iommufd_destroy(int iommufd, u32 id);
int vfio_attach_ioas(int device, u32 *pt_id);
int vfio_bind_id(int device, int iommufd, u32 *dev_id);

#endif
