// SPDX-License-Identifier: GPL-2.0-only
/* The stage.* parameters on the kernel command line. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workload.h"

/* x86: COMMAND_LINE_SIZE */
#define CMDLINE_SIZE 2048

static const char *cmdline(void)
{
	static char line[CMDLINE_SIZE + 1];
	ssize_t len;
	int fd;

	if (line[0])
		return line;

	fd = must(sys(open("/proc/cmdline", O_RDONLY | O_CLOEXEC)));
	len = must(sys(read(fd, line, CMDLINE_SIZE)));
	close(fd);
	line[len] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return line;
}

/*
 * True and a copy of the value when stage.@name= is there. The last one wins,
 * so that words appended for the incoming kernel override earlier ones.
 */
bool param_get(const char *name, char *value, size_t size)
{
	const char *word = cmdline();
	size_t len = strlen(name);
	bool found = false;

	while (*word) {
		size_t word_len = strcspn(word, " ");

		if (word_len > 6 + len && !strncmp(word, "stage.", 6) &&
		    !strncmp(word + 6, name, len) && word[6 + len] == '=') {
			snprintf(value, size, "%.*s", (int)(word_len - len - 7),
				 word + len + 7);
			found = true;
		}
		word += word_len;
		word += strspn(word, " ");
	}
	return found;
}

u64 param_u64(const char *name, u64 otherwise)
{
	char value[32];
	char *end;
	u64 number;

	if (!param_get(name, value, sizeof(value)))
		return otherwise;
	number = strtoull(value, &end, 0);
	must_be(end != value && !*end, "stage.%s=%s is no number", name, value);
	return number;
}

/* Differs between runs; 0 when there is none. */
u64 param_nonce(void)
{
	char text[32];

	if (!param_get("nonce", text, sizeof(text)))
		return 0;
	return strtoull(text, NULL, 16);
}

bool param_control(const char *name)
{
	char value[64];

	return param_get("control", value, sizeof(value)) && !strcmp(value, name);
}

/* Is it a control whose name begins with @kind? */
bool param_control_kind(const char *kind)
{
	char value[64];

	return param_get("control", value, sizeof(value)) && !strncmp(value, kind, strlen(kind));
}

/*
 * Kernels with other promises than ours: what would disturb a device, and is not
 * refused there, is not tried. See common/checks/promise.py.
 */
bool param_lacks_something(void)
{
	char what[32];

	return param_get("lacks", what, sizeof(what));
}

/* Kexecs that lie behind this kernel. */
u64 param_updates_done(void)
{
	return param_u64("updates", 0);
}

enum side param_side(void)
{
	char value[16];

	if (!param_get("side", value, sizeof(value)))
		return SIDE_OUTGOING;
	must_be(!strcmp(value, "incoming"), "stage.side=%s", value);
	return SIDE_INCOMING;
}
