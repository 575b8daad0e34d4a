/* SPDX-License-Identifier: GPL-2.0-only */
/* More sessions, files and folios than one page of LUO's or KHO's lists holds. */
#ifndef MANY_H
#define MANY_H

#include "workload.h"

void many_outgoing(int luo_fd, u64 nonce);
void many_incoming(int luo_fd, u64 nonce);

#endif
