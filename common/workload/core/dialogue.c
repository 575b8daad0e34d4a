// SPDX-License-Identifier: GPL-2.0-only
/*
 * The dialogue with the host: KTAP and facts out, lines in. Every line is one
 * write(), so that lines of PID 1 and of the holder never mix.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "workload.h"

#define LINE_SIZE 4096

static int dialogue_fd = -1;
static unsigned int ktap_number, ktap_planned;

int dialogue_open(const char *tty)
{
	struct termios raw;
	int fd, ret;

	fd = sys(open(tty, O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (fd < 0)
		return fd;

	ret = sys(tcgetattr(fd, &raw));
	if (ret < 0)
		goto out_close;
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&raw, B115200);
	ret = sys(tcsetattr(fd, TCSANOW, &raw));
	if (ret < 0)
		goto out_close;
	dialogue_fd = fd;
	return 0;

out_close:
	close(fd);
	return ret;
}

static void write_line(const char *line, size_t len)
{
	while (len) {
		ssize_t done = write(dialogue_fd, line, len);

		if (done < 0 && errno == EINTR)
			continue;
		/* Nobody could be told that the line to the host is gone. */
		if (done <= 0)
			_exit(1);
		line += done;
		len -= done;
	}
}

void dialogue_line(const char *line)
{
	char buffer[LINE_SIZE];
	int len;

	len = snprintf(buffer, sizeof(buffer), "%s\n", line);
	if (len >= (int)sizeof(buffer)) {
		len = sizeof(buffer) - 1;
		buffer[len - 1] = '\n';
	}
	write_line(buffer, len);
}

/* Returns when the last byte has left the UART: the next kernel resets it. */
void dialogue_drain(void)
{
	tcdrain(dialogue_fd);
}

void fact(const char *key, const char *format, ...)
{
	char line[LINE_SIZE];
	va_list args;
	int len;

	len = snprintf(line, sizeof(line), "# %s=", key);
	va_start(args, format);
	vsnprintf(line + len, sizeof(line) - len, format, args);
	va_end(args);
	dialogue_line(line);
}

void fact_counter(const char *name, u64 tsc)
{
	char key[64];

	snprintf(key, sizeof(key), "t.%s", name);
	fact(key, "%llu", tsc);
}

void ktap_plan(unsigned int tests)
{
	char line[64];

	ktap_number = 0;
	ktap_planned = tests;
	dialogue_line("KTAP version 1");
	snprintf(line, sizeof(line), "1..%u", tests);
	dialogue_line(line);
}

bool ktap_ok(bool ok, const char *name)
{
	char line[LINE_SIZE];

	snprintf(line, sizeof(line), "%s %u %s", ok ? "ok" : "not ok", ++ktap_number, name);
	dialogue_line(line);
	return ok;
}

void ktap_skip(const char *name, const char *reason)
{
	char line[LINE_SIZE];

	snprintf(line, sizeof(line), "ok %u %s # SKIP %s", ++ktap_number, name, reason);
	dialogue_line(line);
}

/* All that are planned and were not tried. */
void ktap_skip_rest(const char *reason)
{
	char name[32];

	while (ktap_number < ktap_planned) {
		snprintf(name, sizeof(name), "not_tried_%u", ktap_number);
		ktap_skip(name, reason);
	}
}

/* The next byte from the host into @byte; false where none comes for a moment. */
bool dialogue_read(char *byte)
{
	struct pollfd input = { .fd = dialogue_fd, .events = POLLIN };

	return poll(&input, 1, 100) > 0 && read(dialogue_fd, byte, 1) == 1;
}
