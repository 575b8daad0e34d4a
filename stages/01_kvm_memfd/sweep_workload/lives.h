/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LIVES_H
#define LIVES_H

#include "sweep.h"

extern const struct call outgoing_calls[];
extern const struct call incoming_calls[];

void preserve_for_incoming(int luo_fd, const char *call, enum fail_kind kind, unsigned int n);
int take_kept(struct point *point, int luo_fd);

#endif
