/* SPDX-License-Identifier: GPL-2.0-only */
/* A process that takes over the device, and does not live to see the end of it. */
#ifndef TAKER_H
#define TAKER_H

#include <stdbool.h>

bool taker_is_killed(void);
void kill_taker(const char *bdf, int luo);

#endif
