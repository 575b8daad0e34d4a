/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory pressure on memfds: what they hold goes to swap. */
#ifndef MEMFD_SWAP_H
#define MEMFD_SWAP_H

#include "workload.h"

int swap_on(void);
void swap_off(void);
u64 swapped_pages(void);
void memfd_page_out(int fd, u64 size);

#endif
