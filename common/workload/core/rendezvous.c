// SPDX-License-Identifier: GPL-2.0-only
/* "await NAME" to the host, and "go NAME" from it. */
#include <stdio.h>
#include <string.h>

#include "workload.h"

/*
 * The host may look at the machine while the workload is blocked; a minute is
 * more than any of its own deadlines.
 */
#define AWAIT_MS 60000
#define LINE_SIZE 4096

static void read_line(char *line, size_t size, const char *awaited, u64 ms)
{
	struct deadline deadline = deadline_in_ms(ms);
	size_t len = 0;

	for (;;) {
		char byte;

		must_be(!deadline_passed(deadline), "await %s: no answer within %llu ms",
			awaited, ms);
		if (!dialogue_read(&byte))
			continue;
		if (byte == '\n')
			break;
		if (len + 1 < size)
			line[len++] = byte;
	}
	line[len] = '\0';
}

void await(const char *name)
{
	await_within(name, AWAIT_MS);
}

/* For a host that has to wait for something itself. */
void await_within(const char *name, u64 ms)
{
	char line[LINE_SIZE], expected[LINE_SIZE];

	snprintf(line, sizeof(line), "# await %s", name);
	dialogue_line(line);
	read_line(line, sizeof(line), name, ms);
	snprintf(expected, sizeof(expected), "go %s", name);
	must_be(!strcmp(line, expected), "await %s: the host said '%s'", name, line);
}
