/* SPDX-License-Identifier: GPL-2.0-only */
/* A process that takes over a device, and does not live to see the end of it. */
#ifndef TAKER_H
#define TAKER_H

#include <stdbool.h>

/**
 * struct taker_step - something that whoever takes over a device does
 * @name: what the name of the control ends with that kills the process after it
 * @take: bails where it fails
 */
struct taker_step {
	const char *name;
	void (*take)(void *taker);
};

bool taker_is_killed(void);
void kill_taker(const char *bdf, const struct taker_step *steps, unsigned int count, void *taker);

#endif
