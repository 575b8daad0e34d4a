// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>

#include "workload.h"

/*
 * The kernel's own idea of the TSC's rate. Both kernels calibrate anew, so the
 * two differ a little although the counter is the same. 0 where it says none.
 */
u64 counter_khz(void)
{
	double mhz = 0;
	char line[256];
	FILE *file;

	file = fopen("/proc/cpuinfo", "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "cpu MHz : %lf", &mhz) == 1)
			break;
	if (file)
		fclose(file);
	return mhz * 1000 + 0.5;
}
