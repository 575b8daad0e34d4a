/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PARALLEL_H
#define PARALLEL_H

#include "types.h"

void parallel_pages(void (*work)(void *argument, u64 first, u64 end), void *argument, u64 pages);

#endif
