// SPDX-License-Identifier: GPL-2.0-only
/* How a side ends that cannot go on, and the machine. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "workload.h"

#define LINE_SIZE 4096

void power_off(void)
{
	dialogue_drain();
	reboot(RB_POWER_OFF);
	/* A kernel without ACPI halts instead; the host's deadline ends it. */
	for (;;)
		pause();
}

/* PID 1 must not exit: the panic would hide the reason that was just given. */
static void __noreturn side_failed(void)
{
	if (getpid() == 1)
		power_off();
	_exit(1);
}

void dialogue_bail(const char *format, ...)
{
	char line[LINE_SIZE];
	va_list args;
	int len;

	len = snprintf(line, sizeof(line), "# bail ");
	va_start(args, format);
	vsnprintf(line + len, sizeof(line) - len, format, args);
	va_end(args);
	dialogue_line(line);
	side_failed();
}

const char *errno_name(long ret)
{
	const char *name = strerrorname_np(-ret);

	return name ?: "no errno";
}
