/* SPDX-License-Identifier: GPL-2.0-only */
/* A live update that does not happen: the device must not notice. */
#ifndef ABORTS_H
#define ABORTS_H

#include "nic.h"

void abort_repeatedly(const struct nic *nic, int *luo_fd, u64 times);

#endif
