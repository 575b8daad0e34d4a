// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "workload.h"

/* arch/x86/include/uapi/asm/setup_data.h */
#define SETUP_KEXEC_KHO	10
#define SETUP_DATA_MAX	64

struct kho_data {
	u64 fdt_addr;
	u64 fdt_size;
	u64 scratch_addr;
	u64 scratch_size;
} __packed;

u64 kho_list_address(void)
{
	char path[64], type[32];
	struct kho_data data;
	unsigned int number;

	for (int i = 0; i < SETUP_DATA_MAX; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/boot_params/setup_data/%d/type", i);
		memset(type, 0, sizeof(type));
		if (read_file(path, type, sizeof(type) - 1) <= 0)
			break;
		if (sscanf(type, "%i", &number) != 1 || number != SETUP_KEXEC_KHO)
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/boot_params/setup_data/%d/data", i);
		if (read_file(path, &data, sizeof(data)) == sizeof(data))
			return data.scratch_addr;
	}
	return 0;
}
