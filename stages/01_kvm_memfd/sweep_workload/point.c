// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lost_fds.h"
#include "point.h"

/* And those that are taken, and open nothing. */
static unsigned int taken_fds(void)
{
	DIR *folder = must_be_memory(opendir("/proc/self/fd"));
	unsigned int count = 0;

	while (readdir(folder))
		count++;
	closedir(folder);
	return count + lost_fds();
}

static void write_file(const char *path, const char *text)
{
	int fd = must(sys(open(path, O_WRONLY | O_CLOEXEC)));

	must(sys(write(fd, text, strlen(text))));
	close(fd);
}

/* To the console, where it tells which point a message of the kernel belongs to. */
void point_mark(const char *text)
{
	char line[128];

	snprintf(line, sizeof(line), "<5>sweep: %s", text);
	write_file("/dev/kmsg", line);
}

void point_begin(struct point *point, const char *call, enum fail_kind kind, unsigned int n)
{
	char text[64];

	*point = (struct point){ .call = call, .kind = fail_kind_names[kind], .n = n };
	snprintf(text, sizeof(text), "%s:%s:%u", call, point->kind, n);
	point_mark(text);
	/* What warns once has to warn at each point. */
	write_file("/sys/kernel/debug/clear_warn_once", "1");
	ledger_read(&point->before);
	point->fds = taken_fds();
}

/* Ends what fail_nth_arm() began, and is @ret. */
int point_cut(struct point *point, int ret)
{
	point->left = fail_nth_disarm();
	point->ret = ret < 0 ? ret : 0;
	return ret;
}

void point_step(struct point *point, const char *name, int ret)
{
	size_t len = strlen(point->steps);

	snprintf(point->steps + len, sizeof(point->steps) - len, "%s%s:%d", len ? "," : "", name,
		 ret < 0 ? ret : 0);
}

/* All that the point made is closed by now. */
void point_say(const struct point *point)
{
	const struct ledger_counters *before = &point->before;
	struct ledger_counters now;
	char key[64];

	ledger_read(&now);
	snprintf(key, sizeof(key), "point.%s.%s.%u", point->call, point->kind, point->n);
	fact(key, "ret=%d left=%u steps=%s fds=%d pins=%lld areas=%lld shmem=%lld committed=%lld"
	     " total=%lld available=%lld taint=%llu", point->ret, point->left, point->steps,
	     (int)(taken_fds() - point->fds), now.pins - before->pins, now.areas - before->areas,
	     (long long)(now.shmem - before->shmem),
	     (long long)(now.committed - before->committed),
	     (long long)(now.total - before->total),
	     (long long)(now.available - before->available), now.taint & ~before->taint);
}
