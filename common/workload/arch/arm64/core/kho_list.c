// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>

#include "workload.h"

/* drivers/of/fdt.c: early_init_dt_check_kho() */
u64 kho_list_address(void)
{
	u64 range[2];

	if (read_file("/sys/firmware/devicetree/base/chosen/linux,kho-scratch", range,
		      sizeof(range)) != sizeof(range))
		return 0;
	return be64toh(range[0]);
}
