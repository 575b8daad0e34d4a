/* SPDX-License-Identifier: GPL-2.0-only */
/* A process that takes over the second device, and does not live to see the end of it. */
#ifndef TAKEN_OVER_H
#define TAKEN_OVER_H

#include "workload.h"

#define OTHER_SESSION "other"
/* The other device's memory: its ring's description, then what it writes to. */
#define OTHER_COUNT 1024
#define OTHER_AREA 0x10000

void kill_other_taker(int luo_fd);
void use_killed_takers_device(u64 nonce);

#endif
