/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef RACES_H
#define RACES_H

#include "nic.h"

void races(struct nic *nic, int luo_fd, u64 rounds);

#endif
