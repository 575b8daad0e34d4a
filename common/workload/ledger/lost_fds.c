// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <unistd.h>

#include "lost_fds.h"
#include "workload.h"

/* So many are looked at beyond the first one that can be had: one that is lost may lie below it. */
#define LOOKED_AT 64

/*
 * Numbers that a call has taken and not given back: no file has them, and none
 * can get them (fs/file.c: do_dup2()).
 */
int lost_fds(void)
{
	int own = must(sys(open("/", O_PATH | O_CLOEXEC))), lost = 0;

	for (int fd = 0; fd < own + LOOKED_AT; fd++) {
		if (sys(fcntl(fd, F_GETFD)) >= 0)
			continue;
		if (sys(dup3(own, fd, O_CLOEXEC)) == -EBUSY)
			lost++;
		else
			close(fd);
	}
	close(own);
	return lost;
}
