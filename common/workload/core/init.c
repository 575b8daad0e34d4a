// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1. The stage's code runs in a child, the holder, so that its death is
 * an event that can be reported (and, in a control run, brought about).
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.h"
#include "workload.h"

/* The holder's end of a pipe; one byte on it asks PID 1 for SIGKILL. */
static int to_init = -1;

static void mount_all(void)
{
	static const struct {
		const char *type, *where;
	} mounts[] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "devtmpfs", "/dev" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tmpfs", "/tmp" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].where, 0755);
		/* What is missing is named later, by whoever needs it. */
		mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL);
	}
}

void holder_request_kill(void)
{
	must(sys(write(to_init, "k", 1)));
	for (;;)
		pause();
}

static void end_side(enum side side, int ret)
{
	if (ret < 0)
		bail("%s side: %s", side == SIDE_INCOMING ? "incoming" : "outgoing",
		     errno_name(ret));
	report_leaks();
	/* A reading of the clock that nothing is in the way of: up to 4 KiB may wait for the UART. */
	dialogue_drain();
	fact_counter("done", read_counter());
	print_last_facts();
	dialogue_line("# done");
}

static int holder_main(void)
{
	enum side side = param_side();

	end_side(side, side == SIDE_INCOMING ? stage.after_kexec() : stage.before_kexec());
	if (side == SIDE_INCOMING && param_updates_done() < param_u64("chain", 1)) {
		ktap_plan(stage.tests[SIDE_OUTGOING]);
		print_common_facts(SIDE_OUTGOING);
		end_side(SIDE_OUTGOING, stage.before_next_kexec());
	}
	return 0;
}

/* Control uncounted-update: a kexec before the first one, of which nobody is told. */
static void update_uncounted(void)
{
	char done[8];

	if (!param_control("uncounted-update") || param_get("uncounted", done, sizeof(done)))
		return;
	must(kexec_load_uncounted());
	must(kexec_start());
}

/*
 * Returns when the holder has ended. There is no deadline here: the holder
 * has one for each of its waits, and the host has one for the whole side.
 */
static void wait_for_holder(pid_t holder, int from_holder)
{
	bool killed = false;
	int status;
	char request;

	/* End of file comes with the holder's death. */
	if (read(from_holder, &request, 1) == 1) {
		killed = true;
		must(sys(kill(holder, SIGKILL)));
	}
	must(sys(waitpid(holder, &status, 0)));
	if (killed)
		must(stage.after_holder_kill());
	else if (WIFSIGNALED(status))
		dialogue_bail("holder died: signal %d", WTERMSIG(status));
}

static void run_holder(void)
{
	int pair[2];
	pid_t holder;

	must(sys(pipe2(pair, O_CLOEXEC)));
	holder = must(sys(fork()));
	if (!holder) {
		close(pair[0]);
		to_init = pair[1];
		_exit(holder_main());
	}
	close(pair[1]);
	wait_for_holder(holder, pair[0]);
}

int main(void)
{
	u64 started = read_counter();
	int ret;

	if (getpid() != 1)
		return stage.helper ? stage.helper() : 1;
	mount_all();
	/* The harness has to get along with a kernel that never says a word. */
	if (param_side() == SIDE_INCOMING && param_control("silent"))
		for (;;)
			pause();
	/* And with one that starts over and over. */
	if (param_control("restarting"))
		reboot(RB_AUTOBOOT);

	update_uncounted();
	ret = dialogue_open(DIALOGUE_TTY);
	if (ret < 0) {
		printf("init: " DIALOGUE_TTY ": %s\n", errno_name(ret));
		power_off();
	}
	ktap_plan(stage.tests[param_side()]);
	fact_counter("userspace", started);
	print_common_facts(param_side());
	run_holder();
	/* The host looks at QEMU's process before it lets the machine go. */
	await("end");
	power_off();
}
