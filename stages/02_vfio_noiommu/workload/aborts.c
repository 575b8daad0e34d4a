// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aborted.h"
#include "aborts.h"
#include "rules.h"

static int preserve(const struct nic *nic, int luo_fd)
{
	int session_fd = must(luo_create_session(luo_fd, SESSION));

	must(luo_preserve_fd(session_fd, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session_fd, nic->device, TOKEN_DEVICE));
	return session_fd;
}

static void close_session(const struct nic *nic)
{
	int luo_fd = must(luo_open());

	close(preserve(nic, luo_fd));
	close(luo_fd);
}

/* Who holds the session dies; who uses the device lives on. */
static void kill_holder(const struct nic *nic)
{
	int pair[2], status;
	pid_t holder;
	char byte;

	must(sys(pipe(pair)));
	holder = must(sys(fork()));
	if (!holder) {
		preserve(nic, must(luo_open()));
		must(sys(write(pair[1], "p", 1)));
		for (;;)
			pause();
	}
	close(pair[1]);
	must_be(read(pair[0], &byte, 1) == 1, "the holder died by itself");
	must(sys(kill(holder, SIGKILL)));
	must(sys(waitpid(holder, &status, 0)));
	close(pair[0]);
}

static void repeat(const struct nic *nic, u64 times, void (*abort_once)(const struct nic *nic),
		   const char *key)
{
	u64 silent = 0;

	for (u64 i = 0; i < times; i++) {
		abort_once(nic);
		silent += !nic_gets_frames(nic);
	}
	fact(key, "%llu times, %llu silent", times, silent);
}

/* /dev/liveupdate can be open only once, so that it is closed meanwhile. */
void abort_repeatedly(const struct nic *nic, int *luo_fd, u64 times)
{
	if (!times || nic->ring->left_behind)
		return;
	close(*luo_fd);
	repeat(nic, times, close_session, "aborts.closed");
	repeat(nic, times, kill_holder, "aborts.killed");
	aborted_report();
	*luo_fd = must(luo_open());
}
