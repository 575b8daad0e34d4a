// SPDX-License-Identifier: GPL-2.0-only
/* Bounds in time. */
#include <time.h>

#include "workload.h"

static u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

u64 now_us(void)
{
	return now_ns() / 1000;
}

/* A kernel of the debug lane takes stage.patience times as long. */
struct deadline deadline_in_ms(u64 ms)
{
	static u64 patience;

	if (!patience)
		patience = param_u64("patience", 1);
	return (struct deadline){ .ns = now_ns() + ms * patience * 1000000 };
}

bool deadline_passed(struct deadline deadline)
{
	return now_ns() >= deadline.ns;
}

/* Lets others run between two looks at something that is polled. */
void poll_pause(void)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };

	nanosleep(&pause, NULL);
}
