/* SPDX-License-Identifier: GPL-2.0-only */
/* LUO's rules, each as one KTAP result: what is refused, and with which errno. */
#ifndef RULES_H
#define RULES_H

#include "workload.h"

#define RULES_OUTGOING 19
#define RULES_INCOMING 13

void rules_outgoing(int luo_fd, u64 nonce);
void rules_incoming(int luo_fd, u64 nonce);

#endif
