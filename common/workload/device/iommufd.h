/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IOMMUFD_LIB_H
#define IOMMUFD_LIB_H

#include "workload.h"

void iommufd_allow_no_remapping(void);
int iommufd_open(void);
int iommufd_ioas_alloc(int iommufd);
int iommufd_map_file(int iommufd, u32 ioas, int fd, u64 start, u64 length, u64 iova);
int iommufd_map_memory(int iommufd, u32 ioas, void *memory, u64 length, u64 iova);
int iommufd_unmap(int iommufd, u32 ioas, u64 iova, u64 length);
int iommufd_get_pa(int iommufd, u32 ioas, u64 iova, u64 *length, u64 *pa);

#endif
