// SPDX-License-Identifier: GPL-2.0-only
/* How much memory a way across takes for a while, beside the guest's RAM. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "free_memory.h"
#include "workload.h"

#define PAUSE_MS 5

static u64 at_first_kb, least_kb;

static void *watch(void *unused)
{
	for (;;) {
		u64 kb = meminfo_kb("MemFree");

		if (kb < READ_ONCE(least_kb))
			WRITE_ONCE(least_kb, kb);
		usleep(PAUSE_MS * 1000);
	}
	return unused;
}

void watch_free_memory(void)
{
	pthread_t thread;

	at_first_kb = least_kb = meminfo_kb("MemFree");
	must(-pthread_create(&thread, NULL, watch, NULL));
}

/* By how much MemFree has fallen at most since watch_free_memory(), if that was called. */
void report_free_memory(const char *doing)
{
	char key[64];

	if (!at_first_kb)
		return;
	snprintf(key, sizeof(key), "mem.fell_kb.%s", doing);
	fact(key, "%llu", at_first_kb - READ_ONCE(least_kb));
}
