// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is known of a vCPU that is run and makes no step: whether its thread runs or sleeps and
 * where, what KVM counts of it meanwhile, and which interrupts its machine takes. A guest that
 * stands still comes once in some hundred trials, and by then there is nobody to look.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm.h"

#define KVM_COUNTS	"/sys/kernel/debug/kvm"
#define INTERRUPTS	"/proc/interrupts"
#define COUNTS_MAX	160
#define NAME_SIZE	40
#define TEXT_SIZE	700

static const struct timespec meanwhile = { .tv_nsec = 200000000 };

struct counts {
	u32 count;
	struct {
		char name[NAME_SIZE];
		u64 value;
	} entry[COUNTS_MAX];
};

static void add(struct counts *counts, const char *name, u64 value)
{
	if (counts->count == COUNTS_MAX)
		return;
	snprintf(counts->entry[counts->count].name, NAME_SIZE, "%.*s", NAME_SIZE - 1, name);
	counts->entry[counts->count++].value = value;
}

/* Of all VMs, and so of the one that there is. */
static void read_kvm(struct counts *counts)
{
	DIR *dir = opendir(KVM_COUNTS);
	struct dirent *entry;
	char path[320], text[32];

	counts->count = 0;
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), KVM_COUNTS "/%s", entry->d_name);
		if (read_text(path, text, sizeof(text)) >= 0)
			add(counts, entry->d_name, strtoull(text, NULL, 0));
	}
	if (dir)
		closedir(dir);
}

/* By line, of all CPUs. */
static void read_interrupts(struct counts *counts)
{
	static char text[16384];
	char *line, *next = text;

	counts->count = 0;
	read_text(INTERRUPTS, text, sizeof(text));
	while ((line = strsep(&next, "\n"))) {
		char *name = strsep(&line, ":"), *end;
		u64 sum = 0;

		if (!line)
			continue;
		for (u64 one = strtoull(line, &end, 10); end != line; one = strtoull(line, &end, 10)) {
			sum += one;
			line = end;
		}
		add(counts, name + strspn(name, " "), sum);
	}
}

static void report_more(const char *key, const struct counts *before, const struct counts *after)
{
	char text[TEXT_SIZE] = "";
	size_t length = 0;

	for (u32 i = 0; i < after->count && i < before->count && length < sizeof(text); i++)
		if (after->entry[i].value > before->entry[i].value)
			length += snprintf(text + length, sizeof(text) - length, " %s=%llu",
					   after->entry[i].name,
					   after->entry[i].value - before->entry[i].value);
	fact(key, "%s", text + strspn(text, " "));
}

/* "R on CPU 0", or "S on CPU 0 in futex_do_wait": proc_pid_stat(5), fields 3 and 39. */
static void thread_text(const struct vcpu *vcpu, char *said, size_t size)
{
	char path[64], text[1024], where[64];
	char *field;
	char state;

	snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", vcpu->tid);
	read_text(path, where, sizeof(where));
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", vcpu->tid);
	read_text(path, text, sizeof(text));
	/* The name, the second field, may have blanks in it. */
	field = strrchr(text, ')');
	if (!field || sscanf(field, ") %c", &state) != 1)
		return;
	for (int at = 2; at < 39 && field; at++)
		field = strchr(field + 1, ' ');
	snprintf(said, size, "%c on CPU %d%s%s", state, field ? atoi(field) : -1,
		 strcmp(where, "0") ? " in " : "", strcmp(where, "0") ? where : "");
}

/* The caller waits 0.2 s meanwhile. */
void report_still(const struct vcpu *vcpu)
{
	static struct counts kvm[2], interrupts[2];
	char thread[2][96] = {};

	for (int i = 0; i < 2; i++) {
		read_kvm(&kvm[i]);
		read_interrupts(&interrupts[i]);
		thread_text(vcpu, thread[i], sizeof(thread[i]));
		if (!i)
			nanosleep(&meanwhile, NULL);
	}
	fact("still.thread", "%s, then %s", thread[0], thread[1]);
	report_more("still.kvm", &kvm[0], &kvm[1]);
	report_more("still.interrupts", &interrupts[0], &interrupts[1]);
}
