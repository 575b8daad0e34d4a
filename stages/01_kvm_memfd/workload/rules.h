/* SPDX-License-Identifier: GPL-2.0-only */
/* LUO's rules, each as one KTAP result: what is refused, and with which errno. */
#ifndef RULES_H
#define RULES_H

#include "workload.h"

#define RULES_OUTGOING 26
#define RULES_INCOMING 19
#define RULES_IOCTL_OUTGOING 15
#define RULES_IOCTL_INCOMING 12

void rule(const char *name, long expected, long seen);
long closed(long fd);
void skip_all(const char * const *names, size_t count);

void rules_outgoing(int luo_fd, u64 nonce);
void rules_incoming(int luo_fd, u64 nonce);
void rules_ioctl_outgoing(int luo_fd);
void rules_ioctl_incoming(int luo_fd);

#endif
