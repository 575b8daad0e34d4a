// SPDX-License-Identifier: GPL-2.0-only
/* What the kernel's log has: a record of /dev/kmsg is "LEVEL,NUMBER,...;TEXT\n" and more lines. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "workload.h"

#define RECORD_SIZE 8192

/* The last warning or error whose text begins with @prefix. */
const char *kernel_complained(const char *prefix)
{
	static char said[256] = "the kernel says nothing of it";
	char record[RECORD_SIZE], *text;
	ssize_t length;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return said;
	/* EPIPE: records were written over, and reading goes on with the oldest that is left. */
	while ((length = read(fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		record[length > 0 ? length : 0] = '\0';
		text = strchr(record, ';');
		if (text && LOG_PRI(atoi(record)) <= LOG_WARNING &&
		    !strncmp(text + 1, prefix, strlen(prefix)))
			snprintf(said, sizeof(said), "%.*s", (int)strcspn(text + 1, "\n"), text + 1);
	}
	close(fd);
	return said;
}
