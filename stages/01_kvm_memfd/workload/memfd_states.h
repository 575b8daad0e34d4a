/* SPDX-License-Identifier: GPL-2.0-only */
/* Memfds in all the states that a memfd can be in when it is preserved, and after it. */
#ifndef MEMFD_STATES_H
#define MEMFD_STATES_H

#include "workload.h"

void states_outgoing(int luo_fd, u64 nonce);
void states_incoming(int luo_fd, u64 nonce);

#endif
