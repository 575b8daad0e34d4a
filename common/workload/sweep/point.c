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

/* The host counts what is registered with KHO, of the kernel that was booted. */
static void let_host_count(const struct point *point, const char *when)
{
	char name[64];

	if (param_side() != SIDE_OUTGOING)
		return;
	snprintf(name, sizeof(name), "kho-%s-%s-%u%s", point->call, point->kind, point->n, when);
	await(name);
}

/* From here on what the call asks for is counted, and the N-th of it fails. */
void point_arm(struct point *point)
{
	let_host_count(point, "-armed");
	ledger_read(&point->armed);
	point->armed_fds = taken_fds();
	fail_nth_arm(point->n);
}

static void note_changes(const struct point *point, char *text, size_t size)
{
	const struct ledger_counters *armed = &point->armed;
	struct ledger_counters now;

	ledger_read(&now);
	snprintf(text, size, "fds:%d,pins:%lld,areas:%lld,total:%lld",
		 (int)(taken_fds() - point->armed_fds), now.pins - armed->pins,
		 now.areas - armed->areas, (long long)(now.total - armed->total));
}

/* Ends what point_arm() began, and is @ret. A failure may have changed anything. */
int point_cut_for_good(struct point *point, int ret)
{
	point->left = fail_nth_disarm();
	point->ret = ret < 0 ? ret : 0;
	if (ret < 0)
		return ret;
	note_changes(point, point->made, sizeof(point->made));
	let_host_count(point, "-made");
	return ret;
}

/*
 * The same of a call that can be made again: one that failed has changed nothing,
 * but for holes of the file, which have got pages (memfd_pin_folios()).
 */
int point_cut(struct point *point, int ret)
{
	if (point_cut_for_good(point, ret) >= 0)
		return ret;
	note_changes(point, point->left_over, sizeof(point->left_over));
	let_host_count(point, "-failed");
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
	fact(key, "ret=%d left=%u steps=%s over=%s made=%s fds=%d pins=%lld areas=%lld shmem=%lld"
	     " committed=%lld total=%lld available=%lld taint=%llu", point->ret, point->left,
	     point->steps, point->left_over, point->made, (int)(taken_fds() - point->fds),
	     now.pins - before->pins, now.areas - before->areas,
	     (long long)(now.shmem - before->shmem),
	     (long long)(now.committed - before->committed),
	     (long long)(now.total - before->total),
	     (long long)(now.available - before->available), now.taint & ~before->taint);
	let_host_count(point, "");
}
