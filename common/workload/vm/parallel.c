// SPDX-License-Identifier: GPL-2.0-only
/* Work on pages, shared among the CPUs: what is done while the guest is paused has to be quick. */
#include <pthread.h>
#include <unistd.h>

#include "parallel.h"
#include "workload.h"

#define MAX_THREADS 8

struct share {
	void (*work)(void *argument, u64 first, u64 end);
	void *argument;
	u64 first, end;
};

static void *run_share(void *argument)
{
	struct share *share = argument;

	share->work(share->argument, share->first, share->end);
	return NULL;
}

/* @work has been called for all of [0, @pages), on as many CPUs as there are. */
void parallel_pages(void (*work)(void *argument, u64 first, u64 end), void *argument, u64 pages)
{
	long cpus = must(sysconf(_SC_NPROCESSORS_ONLN));
	u64 threads = cpus < MAX_THREADS ? cpus : MAX_THREADS;
	struct share shares[MAX_THREADS];
	pthread_t thread[MAX_THREADS];

	for (u64 i = 0; i < threads; i++) {
		shares[i] = (struct share){
			.work = work,
			.argument = argument,
			.first = pages * i / threads,
			.end = pages * (i + 1) / threads,
		};
		if (i)
			must(-pthread_create(&thread[i], NULL, run_share, &shares[i]));
	}
	run_share(&shares[0]);
	for (u64 i = 1; i < threads; i++)
		must(-pthread_join(thread[i], NULL));
}
