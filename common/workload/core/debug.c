// SPDX-License-Identifier: GPL-2.0-only
/* What a kernel of the debug lane is, and has found; of others nothing is said. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

/* kernel/locking/lockdep_proc.c */
#define LOCKDEP_ON "debug_locks:                             1"
#define KMEMLEAK "/sys/kernel/debug/kmemleak"
/*
 * mm/kmemleak.c: an object is reported when it is older than this, in ms, and
 * was found unreferenced by so many scans one after the other. The first of
 * them only takes its checksum.
 */
#define MSECS_MIN_AGE 5000
#define MIN_UNREF_SCANS "/sys/module/kmemleak/parameters/min_unref_scans"

/* True when a line of the file has @text in it. */
static bool file_has(const char *path, const char *text)
{
	char line[256];
	bool found = false;
	FILE *file;

	file = fopen(path, "re");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = strstr(line, text);
	fclose(file);
	return found;
}

/*
 * Which of the debugging features this kernel really has; none is no fact.
 * Lockdep turns itself off when it has found something or has no room left.
 */
static void fact_debug_kernel(void)
{
	fact("kernel.debug", "%s%skmemleak",
	     file_has("/proc/kallsyms", " kasan_report\n") ? "kasan " : "",
	     file_has("/proc/lockdep_stats", LOCKDEP_ON) ? "lockdep " : "");
}

static void scan(void)
{
	int fd = must(sys(open(KMEMLEAK, O_WRONLY | O_CLOEXEC)));

	must(sys(write(fd, "scan", 4)));
	close(fd);
}

/* What kmemleak wants before it reports; 1 in kernels that do not say so. */
static unsigned int min_unref_scans(void)
{
	unsigned int scans = 1;
	FILE *file;

	file = fopen(MIN_UNREF_SCANS, "re");
	if (!file)
		return scans;
	must_be(fscanf(file, "%u", &scans) == 1, "%s cannot be read", MIN_UNREF_SCANS);
	fclose(file);
	return scans;
}

void report_leaks(void)
{
	static const struct timespec age = { .tv_sec = MSECS_MIN_AGE / 1000 + 1 };
	unsigned int scans;
	u64 objects = 0;
	char line[256];
	FILE *file;
	int kmsg;

	if (access(KMEMLEAK, W_OK))
		return;
	fact_debug_kernel();
	nanosleep(&age, NULL);
	scans = 1 + min_unref_scans();
	for (unsigned int i = 0; i < scans; i++)
		scan();
	fact("kmemleak.scans", "%u", scans);

	/* To the console as well, with the call traces. */
	kmsg = must(sys(open("/dev/kmsg", O_WRONLY | O_CLOEXEC)));
	file = fopen(KMEMLEAK, "re");
	must_be(file, "%s cannot be read", KMEMLEAK);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "unreferenced object", 19) && !objects++)
			fact("kmemleak.first", "%s", line);
		must(sys(write(kmsg, line, strlen(line))));
	}
	fclose(file);
	close(kmsg);
	fact("kmemleak.objects", "%llu", objects);
}
