// SPDX-License-Identifier: GPL-2.0-only
/* A process on each CPU that counts, and looks at all clocks each time. */
#include <sched.h>
#include <time.h>

#include "tasks.h"

#define STAMP_MS 10

struct stamp_time {
	u64 mono_ns;
	u64 real_ns;
	u64 tsc;
};

static u64 clock_ns(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static struct stamp_time now(void)
{
	return (struct stamp_time){
		.mono_ns = clock_ns(CLOCK_MONOTONIC),
		.real_ns = clock_ns(CLOCK_REALTIME),
		.tsc = read_counter(),
	};
}

static void note_gap(u64 *longest, u64 before, u64 after)
{
	if (after > before && after - before > *longest)
		*longest = after - before;
}

static void compare(struct stamper *own, struct stamp_time before, struct stamp_time after)
{
	if (after.mono_ns < before.mono_ns)
		fault(&own->faults, "CLOCK_MONOTONIC went from %llu to %llu", before.mono_ns,
		      after.mono_ns);
	if (after.real_ns < before.real_ns)
		fault(&own->faults, "CLOCK_REALTIME went from %llu to %llu", before.real_ns,
		      after.real_ns);
	if (after.tsc < before.tsc)
		fault(&own->faults, "TSC went from %llu to %llu", before.tsc, after.tsc);
	if (after.mono_ns > before.mono_ns + own->gap_mono_ns)
		own->gap_at = own->count;
	note_gap(&own->gap_mono_ns, before.mono_ns, after.mono_ns);
	note_gap(&own->gap_real_ns, before.real_ns, after.real_ns);
	note_gap(&own->gap_tsc, before.tsc, after.tsc);
}

void stamp(unsigned int cpu)
{
	struct stamper *own = &shared->stamper[cpu];
	struct stamp_time before = now(), after;
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	if (sched_setaffinity(0, sizeof(only), &only))
		die("sched_setaffinity %u", cpu);
	for (;;) {
		sleep_ms(STAMP_MS);
		after = now();
		compare(own, before, after);
		before = after;
		own->count++;
	}
}
