// SPDX-License-Identifier: GPL-2.0-only
/* What PID 1 spoils of the processes' own when the host says so. */
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tasks.h"

static void corrupt_file(void)
{
	int fd = open(FILE_NAME, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || pwrite(fd, "x", 1, FILE_BLOCK_SIZE / 2) != 1)
		die("corrupt %s", FILE_NAME);
	close(fd);
}

static void turn_clock_back(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec -= 3600;
	clock_settime(CLOCK_REALTIME, &now);
}

/* Without an end of line, the record stays open until there is another one. */
static void make_kernel_complain(void)
{
	static const char complaint[] = "<4>corrupted by /init\n";
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, complaint, strlen(complaint)) < 0)
		die("/dev/kmsg");
	close(fd);
}

/* True for what it knows. */
bool corrupt_something(const char *what)
{
	if (!strcmp(what, "count"))
		shared->stamper[0].count /= 2;
	else if (!strcmp(what, "tcp"))
		shared->corrupt_tcp = true;
	else if (!strcmp(what, "file"))
		corrupt_file();
	else if (!strcmp(what, "clock"))
		turn_clock_back();
	else if (!strcmp(what, "frame"))
		shared->nic.corrupt = true;
	else if (!strcmp(what, "answer"))
		shared->talk.corrupt = true;
	else if (!strcmp(what, "connection"))
		shared->talk.renew = true;
	else if (!strcmp(what, "log"))
		make_kernel_complain();
	else
		return false;
	return true;
}
