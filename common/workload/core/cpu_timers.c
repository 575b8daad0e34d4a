// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each CPU has a timer of its own that interrupts it. A thread on each sleeps a few times while the
 * workload goes on, and measures how long: of a few times the shortest, since a CPU may be busy.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define CPUS_MAX	64
#define SLEEPS		5
/* So many that a kernel whose timers only fire at ticks, 250 times a second, is far from half. */
#define SLEEP_US	20000
#define WAIT_MS		3000

/* Shared: the process that reports is not always the one that started them, but a child of it. */
struct sleeper {
	unsigned int cpu;
	u64 shortest_us;	/* 0 until all is measured */
};

static struct sleeper *sleepers;
static unsigned int nr_sleepers;

static void *sleep_and_measure(void *argument)
{
	const struct timespec asked = { .tv_nsec = SLEEP_US * 1000 };
	struct sleeper *self = argument;
	u64 shortest = ~0ull;
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(self->cpu, &here);
	must(sys(sched_setaffinity(0, sizeof(here), &here)));
	for (int i = 0; i < SLEEPS; i++) {
		u64 start = now_us(), slept;

		clock_nanosleep(CLOCK_MONOTONIC, 0, &asked, NULL);
		if (self->cpu && param_control("cpu-timer-late"))
			clock_nanosleep(CLOCK_MONOTONIC, 0, &asked, NULL);
		slept = now_us() - start;
		if (slept < shortest)
			shortest = slept;
	}
	WRITE_ONCE(self->shortest_us, shortest);
	return NULL;
}

void cpu_timers_start(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	nr_sleepers = cpus < CPUS_MAX ? cpus : CPUS_MAX;
	sleepers = mmap(NULL, nr_sleepers * sizeof(*sleepers), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must_be(sleepers != MAP_FAILED, "%s", errno_name(-errno));
	for (unsigned int i = 0; i < nr_sleepers; i++) {
		pthread_t thread;

		sleepers[i].cpu = i;
		must(-pthread_create(&thread, NULL, sleep_and_measure, &sleepers[i]));
		pthread_detach(thread);
	}
}

/* Facts cpu.N.timer_us, and what was asked for. A CPU whose timer never fires has none. */
void cpu_timers_report(void)
{
	struct deadline deadline = deadline_in_ms(WAIT_MS);
	char key[32];

	fact("cpu.timer_asked_us", "%d", SLEEP_US);
	for (unsigned int i = 0; i < nr_sleepers; i++) {
		while (!READ_ONCE(sleepers[i].shortest_us) && !deadline_passed(deadline))
			poll_pause();
		snprintf(key, sizeof(key), "cpu.%u.timer_us", i);
		if (READ_ONCE(sleepers[i].shortest_us))
			fact(key, "%llu", sleepers[i].shortest_us);
	}
}
