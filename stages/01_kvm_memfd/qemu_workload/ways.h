/* SPDX-License-Identifier: GPL-2.0-only */
/* Other ways to get QEMU's guest across, to be compared with the live update; see ways.c. */
#ifndef WAYS_H
#define WAYS_H

#include "qemu_process.h"

int cross_in_place(struct qemu_config config, pid_t outgoing);

bool place_wanted(void);
void place_prepare(void);
int ram_new(u64 size);
int save_to_place(void);
int load_from_place(struct qemu_config config);

#endif
