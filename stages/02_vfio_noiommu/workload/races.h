/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef RACES_H
#define RACES_H

#include "nic.h"

/* Each way ends with its first round that goes wrong. */
void races(struct nic *nic, int luo_fd, u64 rounds, u64 unbind_port_rounds);

#endif
