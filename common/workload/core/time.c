// SPDX-License-Identifier: GPL-2.0-only
/* Bounds in time; and whether the timers of all CPUs keep it. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define CPUS_MAX	64
#define SLEEPS		11
#define SLEEP_US	1000
#define BATCHES		20

u64 now_ns(void)
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

/*
 * Each CPU has a timer of its own, which wakes who sleeps there. Measured while nothing else runs,
 * by sleeps shorter than a tick, since other interrupts of the timer hide that it is late. The
 * median of a batch counts, as a few sleeps end by such an interrupt. A host that does not run the
 * CPU makes sleeps longer, never shorter: so the best of some batches counts, where the first is
 * not good.
 */
struct sleeper {
	pthread_t thread;
	unsigned int cpu;
	u64 median_us;
};

static int by_length(const void *one, const void *other)
{
	u64 a = *(const u64 *)one, b = *(const u64 *)other;

	return a < b ? -1 : a > b;
}

/* This thread, and whoever it starts from now on. */
void run_on_cpu(unsigned int cpu)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	must(sys(sched_setaffinity(0, sizeof(here), &here)));
}

/*
 * QEMU's TCG loses what the machine's first CPU changes at VMRUN and at VM exits while another CPU
 * restores its FPU (docs/findings/tcg-hflags2-race.md). Who runs a guest calls this first.
 */
void run_where_guests_may(void)
{
	u64 off = param_u64("no_guest_on_cpu", CPU_SETSIZE);
	cpu_set_t cpus;

	if (off >= CPU_SETSIZE)
		return;
	must(sys(sched_getaffinity(0, sizeof(cpus), &cpus)));
	CPU_CLR(off, &cpus);
	if (CPU_COUNT(&cpus))
		must(sys(sched_setaffinity(0, sizeof(cpus), &cpus)));
}

static void *sleep_and_measure(void *argument)
{
	const struct timespec asked = { .tv_nsec = SLEEP_US * 1000 };
	struct sleeper *self = argument;

	run_on_cpu(self->cpu);
	self->median_us = ~0ull;
	for (int batch = 0; batch < BATCHES && self->median_us > SLEEP_US * 3 / 2; batch++) {
		u64 slept[SLEEPS];

		for (int i = 0; i < SLEEPS; i++) {
			u64 start = now_us();

			clock_nanosleep(CLOCK_MONOTONIC, 0, &asked, NULL);
			if (self->cpu && param_control("cpu-timer-late"))
				clock_nanosleep(CLOCK_MONOTONIC, 0, &asked, NULL);
			slept[i] = now_us() - start;
		}
		qsort(slept, SLEEPS, sizeof(slept[0]), by_length);
		if (slept[SLEEPS / 2] < self->median_us)
			self->median_us = slept[SLEEPS / 2];
	}
	return NULL;
}

/* Facts cpu.N.timer_us, and what was asked for. */
void report_cpu_timers(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct sleeper sleepers[CPUS_MAX];
	char key[32];

	if (cpus > CPUS_MAX)
		cpus = CPUS_MAX;
	for (long i = 0; i < cpus; i++) {
		sleepers[i].cpu = i;
		must(-pthread_create(&sleepers[i].thread, NULL, sleep_and_measure, &sleepers[i]));
	}
	fact("cpu.timer_asked_us", "%d", SLEEP_US);
	for (long i = 0; i < cpus; i++) {
		pthread_join(sleepers[i].thread, NULL);
		snprintf(key, sizeof(key), "cpu.%ld.timer_us", i);
		fact(key, "%llu", sleepers[i].median_us);
	}
}
