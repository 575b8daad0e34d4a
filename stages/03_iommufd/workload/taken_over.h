/* SPDX-License-Identifier: GPL-2.0-only */
/* A process that takes over the device, and does not live to see the end of it. */
#ifndef TAKEN_OVER_H
#define TAKEN_OVER_H

void kill_device_taker(const char *bdf, int luo);

#endif
