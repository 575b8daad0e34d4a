// SPDX-License-Identifier: GPL-2.0-only
/* The last step of the outgoing side, and what controls do in its place. */
#include <fcntl.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "workload.h"

/* By kexec, or as the control says. Does not return, but for a kernel that refuses. */
int leave_kernel(void)
{
	if (param_control("firmware-reboot")) {
		dialogue_drain();
		return sys(reboot(RB_AUTOBOOT));
	}
	return kexec_reboot();
}

/* As leave_kernel(), when the host lets this one go. */
int leave_for_incoming(void)
{
	await("reboot");
	if (stage.at_reboot)
		stage.at_reboot();
	fact_counter("reboot", read_counter());
	if (param_control("power-off")) {
		dialogue_drain();
		return sys(reboot(RB_POWER_OFF));
	}
	if (param_control("panic")) {
		int fd = must(sys(open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC)));

		dialogue_drain();
		must(sys(write(fd, "c", 1)));
	}
	return leave_kernel();
}
