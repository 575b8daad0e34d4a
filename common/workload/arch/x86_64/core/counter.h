/* SPDX-License-Identifier: GPL-2.0-only */
/* The counter that runs through a kexec, as userspace and guests read it: the TSC. */
#ifndef COUNTER_H
#define COUNTER_H

static inline u64 read_counter(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

#endif
