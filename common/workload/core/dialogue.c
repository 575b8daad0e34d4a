// SPDX-License-Identifier: GPL-2.0-only
/*
 * The dialogue with the host: KTAP and facts out, "go NAME" in. Every line is
 * one write(), so that lines of PID 1 and of the holder never mix.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

/*
 * The host may look at the machine while the workload is blocked; a minute is
 * more than any of its own deadlines.
 */
#define AWAIT_MS 60000
#define LINE_SIZE 4096

static int dialogue_fd = -1;
static unsigned int ktap_number;

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

void fact_tsc(const char *name, u64 tsc)
{
	char key[64];

	snprintf(key, sizeof(key), "t.%s", name);
	fact(key, "%llu", tsc);
}

void ktap_plan(unsigned int tests)
{
	char line[64];

	ktap_number = 0;
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

static void read_line(char *line, size_t size, const char *awaited, u64 ms)
{
	struct deadline deadline = deadline_in_ms(ms);
	size_t len = 0;

	for (;;) {
		struct pollfd input = { .fd = dialogue_fd, .events = POLLIN };
		char byte;

		must_be(!deadline_passed(deadline), "await %s: no answer within %llu ms",
			awaited, ms);
		if (poll(&input, 1, 100) <= 0 || read(dialogue_fd, &byte, 1) != 1)
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

void dialogue_bail(const char *format, ...)
{
	char line[LINE_SIZE];
	va_list args;
	int len;

	len = snprintf(line, sizeof(line), "# bail ");
	va_start(args, format);
	vsnprintf(line + len, sizeof(line) - len, format, args);
	va_end(args);
	dialogue_line(line);
	side_failed();
}

const char *errno_name(long ret)
{
	const char *name = strerrorname_np(-ret);

	return name ?: "no errno";
}

static u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

u64 now_us(void)
{
	return now_ns() / 1000;
}

/* A kernel of the debug lane takes stage.patience times as long. */
struct deadline deadline_in_ms(u64 ms)
{
	static u64 patience;

	if (!patience)
		patience = param_u64("patience", 1);
	return (struct deadline){ .ns = now_ns() + ms * patience * 1000000 };
}

bool deadline_passed(struct deadline deadline)
{
	return now_ns() >= deadline.ns;
}

/* Lets others run between two looks at something that is polled. */
void poll_pause(void)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };

	nanosleep(&pause, NULL);
}
