// SPDX-License-Identifier: GPL-2.0-only
#include "workload.h"

/* What firmware, or QEMU in its place, has put into the register: nothing is calibrated. */
u64 counter_khz(void)
{
	return counter_hz() / 1000;
}
