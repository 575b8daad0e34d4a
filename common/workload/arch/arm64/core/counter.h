/* SPDX-License-Identifier: GPL-2.0-only */
/* The counter that runs through a kexec, as userspace and guests read it: CNTVCT_EL0. */
#ifndef COUNTER_H
#define COUNTER_H

static inline u64 read_counter(void)
{
	u64 ticks;

	asm volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(ticks) : : "memory");
	return ticks;
}

static inline u64 counter_hz(void)
{
	u64 hz;

	asm volatile("mrs %0, cntfrq_el0" : "=r"(hz));
	return hz;
}

#endif
