// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>

#include "workload.h"

/*
 * The kernel's own idea of the TSC's rate. Both kernels calibrate anew, so the
 * two differ a little although the counter is the same. 0 where it says none.
 */
u64 counter_khz(void)
{
	char value[64];

	if (!field_of_file("/proc/cpuinfo", "cpu MHz", value, sizeof(value)))
		return 0;
	return strtod(value, NULL) * 1000 + 0.5;
}
