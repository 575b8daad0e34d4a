// SPDX-License-Identifier: GPL-2.0-only
/*
 * A line for each point: MemAvailable (with the CPUs' own lists), MemTotal,
 * Shmem, what of it is charged to our memory cgroup, Committed_AS, pins, the
 * vmalloc areas that LUO and KHO made, and the taint flags, which tell whether
 * the kernel has warned by then. The counters
 * are exact once vm.stat_refresh has added up what CPUs keep for themselves
 * (mm/vmstat.c); MemAvailable is not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ledger.h"

#define CGROUPS "/sys/fs/cgroup"
#define OURS CGROUPS "/ledger"

static bool in_cgroup;

/*
 * What this process allocates from now on is charged to a cgroup of its own, in
 * which there is nothing yet. A kernel may have no memory cgroups.
 */
void ledger_enter_cgroup(void)
{
	int ret = in_cgroup ? 0 : sys(mount("cgroup", CGROUPS, "cgroup2", 0, NULL));

	fact("memory.cgroup", "%d", ret);
	if (ret < 0 || in_cgroup)
		return;
	write_to(CGROUPS "/cgroup.subtree_control", "+memory");
	must(sys(mkdir(OURS, 0700)));
	write_to(OURS "/cgroup.procs", "0");
	in_cgroup = true;
}

/* Of /sys/fs/cgroup/ledger/memory.stat, in KiB. */
static u64 charged_kb(void)
{
	unsigned long long bytes = 0;
	char line[128];
	FILE *file = fopen(OURS "/memory.stat", "re");

	must_be(file, "%s/memory.stat cannot be read", OURS);
	while (fgets(line, sizeof(line), file) && sscanf(line, "shmem %llu", &bytes) != 1)
		;
	fclose(file);
	return bytes / 1024;
}

/* Pages that are there and were never written to, as fallocate() leaves them. */
int ledger_file(u64 size)
{
	int fd = must(sys(memfd_create("ledger", MFD_CLOEXEC)));

	must(sys(ftruncate(fd, size)));
	must(sys(fallocate(fd, 0, 0, size)));
	return fd;
}

/* Control memory-kept: somebody takes as much as is looked for, and keeps it. */
void keep_memory(void)
{
	if (param_control("memory-kept"))
		ledger_file(LEDGER_FILE);
}

/* Of /proc/sys/kernel/tainted; a kernel that warned says so there. */
static u64 taint(void)
{
	unsigned long long flags = 0;
	FILE *file = fopen("/proc/sys/kernel/tainted", "re");

	must_be(file && fscanf(file, "%llu", &flags) == 1, "the taint flags cannot be read");
	fclose(file);
	return flags;
}

void ledger_read(struct ledger_counters *now)
{
	refresh_counters();
	now->available = available_kb();
	now->total = meminfo_kb("MemTotal");
	now->shmem = meminfo_kb("Shmem");
	now->charged = in_cgroup ? charged_kb() : 0;
	now->committed = meminfo_kb("Committed_AS");
	now->pins = pinned_pages();
	now->areas = handover_areas();
	now->taint = taint();
}

void ledger(const char *point)
{
	struct ledger_counters now;
	char key[64];

	ledger_read(&now);
	snprintf(key, sizeof(key), "memory.%s", point);
	fact(key, "available=%llu total=%llu shmem=%llu charged=%llu committed=%llu pins=%lld"
	     " areas=%lld taint=%llu",
	     now.available, now.total, now.shmem, now.charged, now.committed, now.pins, now.areas,
	     now.taint);
}

/* At the rendezvous the host reads what is registered with KHO in the machine's RAM. */
void ledger_for_host(const char *point)
{
	char name[64];

	ledger(point);
	snprintf(name, sizeof(name), "kho-%s", point);
	await(name);
}
