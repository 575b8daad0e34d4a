// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "taker.h"
#include "vfio.h"

/* The control's name ends with the last thing that the process gets done. */
#define CONTROL "taker-killed-"

bool taker_is_killed(void)
{
	return param_control_kind(CONTROL);
}

static void __noreturn take_over(const struct taker_step *steps, unsigned int count, void *taker)
{
	char last[64];

	param_get("control", last, sizeof(last));
	for (unsigned int i = 0; i < count; i++) {
		steps[i].take(taker);
		if (!strcmp(last + strlen(CONTROL), steps[i].name))
			raise(SIGKILL);
	}
	bail("stage.control=%s", last);
}

/* @taker is what the steps work on, in a process of their own. */
void kill_taker(const char *bdf, const struct taker_step *steps, unsigned int count, void *taker)
{
	pid_t pid;
	int status;

	must(pci_driver_bind(bdf, "vfio-pci"));
	pid = must(sys(fork()));
	if (!pid)
		take_over(steps, count, taker);
	must(sys(waitpid(pid, &status, 0)));
	fact("taker.signal", "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	fact_counter("taker_died", read_counter());
}
