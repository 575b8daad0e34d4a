/* SPDX-License-Identifier: GPL-2.0-only */
/* Processes that go on using LUO while reboot() serialises. */
#ifndef RACERS_H
#define RACERS_H

#include "workload.h"

void racers_start(int luo_fd, u64 nonce);
void racers_go(void);
void racers_incoming(int luo_fd, u64 nonce);

#endif
