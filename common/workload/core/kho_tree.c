// SPDX-License-Identifier: GPL-2.0-only
/* Where the host finds what is registered with KHO; see common/machine/kho_counts.py. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "workload.h"

#define OUT_FDT "/sys/kernel/debug/kho/out/fdt"
#define FDT_MAX 1024
/*
 * KHO's tree to hand over, where its root is to be found. A kernel that came by
 * kexec itself has no such file (kho_init(), Linux 7.3).
 */
void say_kho_tree(void)
{
	char hex[2 * FDT_MAX + 1] = "";
	unsigned char fdt[FDT_MAX];
	ssize_t len;
	int fd;

	fd = open(OUT_FDT, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	len = must(sys(read(fd, fdt, sizeof(fdt))));
	close(fd);
	for (ssize_t i = 0; i < len; i++)
		sprintf(hex + 2 * i, "%02x", fdt[i]);
	fact("kho.fdt", "%s", hex);
}
