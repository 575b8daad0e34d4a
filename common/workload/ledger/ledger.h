/* SPDX-License-Identifier: GPL-2.0-only */
/* What memory a kernel says it has, at points between which it took some or gave it back. */
#ifndef LEDGER_H
#define LEDGER_H

#include "workload.h"

/* Of a file whose memory is looked for: large enough to be seen among all else. */
#define LEDGER_FILE (2ull << 20)

/**
 * struct ledger_counters - what the kernel counts, all CPUs' shares added up
 * @available: MemAvailable and the CPUs' own lists, in KiB; not exact
 * @total: MemTotal, in KiB: grows by what is restored from the last kernel
 * @shmem: in KiB
 * @charged: of @shmem, what this process's memory cgroup is charged for, in KiB;
 *	     up to 64 pages for each CPU may not be added up yet
 * @committed: Committed_AS, in KiB
 * @pins: pages that are pinned
 * @areas: vmalloc areas that LUO and KHO made
 * @taint: flags; 512: the kernel warned
 */
struct ledger_counters {
	u64 available, total, shmem, charged, committed;
	long long pins, areas;
	u64 taint;
};

void ledger_enter_cgroup(void);
int ledger_file(u64 size);
void keep_memory(void);
void ledger_read(struct ledger_counters *now);
void ledger(const char *point);
void ledger_for_host(const char *point);

#endif
