/* SPDX-License-Identifier: GPL-2.0-only */
/* Other ways to get QEMU's guest across, to be compared with the live update; see ways.c. */
#ifndef WAYS_H
#define WAYS_H

#include "qemu_process.h"

int cross_in_place(struct qemu_config config, pid_t outgoing);
int save_to_disk(void);
int load_from_disk(struct qemu_config config);

#endif
