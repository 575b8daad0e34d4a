// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/thread-self/fail-nth counts down at each allocation and each copy from
 * and to userspace of this thread, and what brings it to 0 fails. The two calls
 * that end it are of that kind themselves (tools/testing/selftests/iommu/
 * iommufd_fail_nth.c has the same trouble).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail_nth.h"

#define DEBUGFS "/sys/kernel/debug/"

#define ABOVE_ALL_ORDERS "64"

const char * const fail_kind_names[NR_FAIL_KINDS] = { "copy", "slab", "page", "any" };

static int fail_fd = -1;

static void set(const char *path, const char *value)
{
	int fd = sys(open(path, O_WRONLY | O_CLOEXEC));

	must_be(fd >= 0, "%s: %s: is this a kernel with kernel/configs/sweep.config?", path,
		errno_name(fd));
	must_be(dprintf(fd, "%s", value) > 0, "%s does not take %s", path, value);
	close(fd);
}

/* In a file of the kernel, which is one range: functions of it, by name. */
struct part {
	const char *attribute;
	const char *names[2];
};

static bool is_of(const struct part *part, const char *name)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(part->names); i++)
		if (!strcmp(name, part->names[i]))
			return true;
	return false;
}

/* From the first of them up to what comes after the last; they are neighbours. */
static void find_part(const struct part *part, unsigned long long *start, unsigned long long *end)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	unsigned long long address, last = 0;
	char line[256], name[128];

	must_be(symbols, "/proc/kallsyms cannot be read");
	*start = *end = ~0ull;
	for (int pass = 0; pass < 2; pass++) {
		rewind(symbols);
		while (fgets(line, sizeof(line), symbols)) {
			if (sscanf(line, "%llx %*c %127s", &address, name) != 2)
				continue;
			if (!pass && is_of(part, name)) {
				*start = address < *start ? address : *start;
				last = address > last ? address : last;
			}
			if (pass && address > last && address < *end)
				*end = address;
		}
	}
	fclose(symbols);
	must_be(last, "this kernel has none of %s() and the like", part->names[0]);
}

static void set_filter(const struct part *part, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", part->attribute, name);
	set(path, value);
}

static void leave_out(const struct part *part)
{
	unsigned long long start, end;
	char text[32];

	find_part(part, &start, &end);
	snprintf(text, sizeof(text), "0x%llx", start);
	set_filter(part, "reject-start", text);
	snprintf(text, sizeof(text), "0x%llx", end);
	set_filter(part, "reject-end", text);
	set_filter(part, "stacktrace-depth", "32");
}

/*
 * Whether the slab needs a page is chance, and one that it cannot have is an
 * object that cannot be had, which is a kind of its own. Without these the pages
 * of a call are the same ones each time. And what kmemleak notes of an object
 * is in no other kernel.
 */
static const struct part slab_pages = { "fail_page_alloc", { "new_slab", "allocate_slab" } };
static const struct part kmemleak_notes = { "failslab", { "__alloc_object", "__create_object" } };

/*
 * Allocations that may wait fail as well, and the console shows the stack of
 * each failure: what was cut is told by it.
 */
void fail_nth_open(void)
{
	leave_out(&slab_pages);
	leave_out(&kmemleak_notes);
	set(DEBUGFS "failslab/ignore-gfp-wait", "N");
	set(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N");
	set(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	set(DEBUGFS "failslab/verbose", "2");
	set(DEBUGFS "fail_page_alloc/verbose", "2");
	set(DEBUGFS "fail_usercopy/verbose", "2");
	fail_fd = must(sys(open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC)));
}

/* Counted separately, so that the numbers of one kind do not depend on another. */
void fail_nth_kind(enum fail_kind kind)
{
	bool slab = kind == FAIL_SLAB || kind == FAIL_ANY;
	bool page = kind == FAIL_PAGE || kind == FAIL_ANY;

	/* No cache is marked for it, so that the filter leaves none. */
	set(DEBUGFS "failslab/cache-filter", slab ? "N" : "Y");
	set(DEBUGFS "fail_page_alloc/min-order", page ? "0" : ABOVE_ALL_ORDERS);
}

/* 0: nothing fails. */
void fail_nth_arm(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	must_be(pwrite(fail_fd, text, len, 0) == len, "fail-nth does not take %u", n);
}

/* What was left of n: 0 when something failed. Nothing fails from here on. */
unsigned int fail_nth_disarm(void)
{
	char text[16] = "";
	unsigned int left;
	ssize_t len;

	len = pread(fail_fd, text, sizeof(text) - 1, 0);
	/* What fails here is the copy of the answer: one was left. */
	must_be(len > 0 || errno == EFAULT, "fail-nth cannot be read");
	left = len > 0 ? strtoul(text, NULL, 10) : 1;
	if (pwrite(fail_fd, "0", 1, 0) != 1)
		must_be(pwrite(fail_fd, "0", 1, 0) == 1, "fail-nth cannot be taken back");
	return left;
}
