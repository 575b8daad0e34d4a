// SPDX-License-Identifier: GPL-2.0-only
/* What the guest's kernel says of itself: interrupts by vector, and complaints in its log. */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tasks.h"

/* KERN_WARNING: what is less than that is no complaint. */
#define WARNING 4
#define LEVEL_MASK 7

/* Of all CPUs, in a line of /proc/interrupts behind its number. */
static u64 sum_of(char **at)
{
	u64 sum = 0;
	char *end;

	for (;;) {
		unsigned long long count = strtoull(*at, &end, 10);

		if (end == *at || (*end != ' ' && *end != '\n'))
			return sum;
		sum += count;
		*at = end;
	}
}

/* " irq.NAME=COUNT" for each vector of the network device. */
void say_interrupts(void (*say)(const char *format, ...))
{
	FILE *file = fopen("/proc/interrupts", "re");
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		char *at = strchr(line, ':'), *name = strstr(line, NIC);
		u64 count;

		if (!at || !name)
			continue;
		at++;
		count = sum_of(&at);
		name[strcspn(name, " \n")] = '\0';
		say(" irq.%s=%llu", name, count);
	}
	if (file)
		fclose(file);
}

/* True when there is another complaint in the log, which is then in @text. */
bool kernel_complains(char *text, size_t size)
{
	static int fd = -1;
	char record[1024];
	ssize_t len;

	if (fd < 0)
		fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	while (fd >= 0 && (len = read(fd, record, sizeof(record) - 1)) > 0) {
		char *begin;

		record[len] = '\0';
		begin = strchr(record, ';');
		if (!begin || (atoi(record) & LEVEL_MASK) > WARNING)
			continue;
		begin++;
		begin[strcspn(begin, "\n")] = '\0';
		snprintf(text, size, "%s", begin);
		return true;
	}
	return false;
}
