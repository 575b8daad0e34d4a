// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "evidence.h"

#define CANARY 0xca

/*
 * Descriptors that lead nowhere: one each eighth of a second, from half a second
 * after the frame that comes next on, as long as half of the ring lasts. Some of
 * them are in the gap, however long the host takes to get there. The IOVA is the
 * address of a page of real memory.
 *
 * Where interrupts are remapped every other one leads to where interrupt requests
 * go. No CPU has the APIC ID in that address, and no kernel uses the entries of the
 * remapping table that it stands for: should a request get through, the machine
 * goes on, and the host counts it.
 */
#define UNMAPPED_FIRST (RATE / 2)
#define UNMAPPED_STEP (RATE / 8)
#define UNMAPPED_MOST 120
#define INTERRUPTS 0xfee80000ull

/* Of what is available: the rest is for those who want to go on meanwhile. */
#define HOG_PERCENT 80

/* Page tables, root and context tables of all devices; what CPUs count by themselves is added up. */
void report_iommu_pages(const char *when)
{
	refresh_counters();
	fact(when, "%lld", iommu_pages());
}

/* The same, as all of the kernel's tables of this kind are counted. */
void report_secondary_pages(const char *when)
{
	refresh_counters();
	fact(when, "%llu", meminfo_kb("SecPageTables") / (RING_PAGE_SIZE / 1024));
}

/* Interrupts by which the IOMMU has reported faults to this kernel, on all CPUs. */
void report_fault_interrupts(const char *when)
{
	FILE *file = must_be_memory(fopen("/proc/interrupts", "re"));
	char line[1024], *at;
	u64 count = 0;

	while (fgets(line, sizeof(line), file)) {
		if (!strstr(line, " dmar0"))
			continue;
		at = strchr(line, ':') + 1;
		for (long cpu = sysconf(_SC_NPROCESSORS_ONLN); cpu > 0; cpu--)
			count += strtoull(at, &at, 10);
	}
	fclose(file);
	fact(when, "%llu", count);
}

/* In kB. */
void report_pins(const char *when)
{
	fact(when, "VmPin=%llu VmLck=%llu", own_kb("VmPin"), own_kb("VmLck"));
}

/* Stands for where all pages are. */
u64 digest_pfns(const struct nic *nic)
{
	const u64 pages = MEMORY_SIZE / RING_PAGE_SIZE;
	u64 *pfns = must_be_memory(calloc(pages, sizeof(u64))), digest = 0;

	for (u64 i = 0; i < pages; i++)
		(void)READ_ONCE(nic->memory[i * RING_PAGE_SIZE]);
	must(pagemap_read(nic->memory, pages, pfns));
	for (u64 i = 0; i < pages; i++)
		digest = digest * 1099511628211ull + pfns[i];
	free(pfns);
	return digest;
}

void report_place(const struct nic *nic, const char *when)
{
	fact(when, "%s", digest_pfns(nic) == nic->reader->pfns ? "in place" : "moved");
}

/*
 * Another process takes most of the memory there is, so that the kernel looks for
 * more, and has the rest compacted. Who reads a ring cannot wait for that.
 */
int hog_start(void)
{
	u64 size = available_kb() * 1024 / 100 * HOG_PERCENT;
	int pid = must(sys(fork()));
	u8 *memory;

	if (pid) {
		fact("hog.mib", "%llu", size >> 20);
		return pid;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		_exit(1);
	for (u64 at = 0; at < size; at += RING_PAGE_SIZE)
		WRITE_ONCE(memory[at], 1);
	munmap(memory, size);
	compact_memory();
	_exit(0);
}

/* False when that process has ended; how is a fact then. */
bool hog_goes_on(int pid)
{
	int status;

	if (!must(sys(waitpid(pid, &status, WNOHANG))))
		return true;
	fact("hog.status", "%d", status);
	return false;
}

static u8 *canary_map(const struct nic *nic)
{
	u8 *canary = mmap(NULL, RING_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, nic->canary, 0);

	must_be(canary != MAP_FAILED, "%s", errno_name(-errno));
	return canary;
}

/* If translation was off, even for a moment, frames would land in it. */
void canary_new(struct nic *nic)
{
	u64 pfn;
	u8 *canary;

	nic->canary = must(sys(memfd_create("canary", MFD_CLOEXEC)));
	must(sys(ftruncate(nic->canary, RING_PAGE_SIZE)));
	canary = canary_map(nic);
	memset(canary, CANARY, RING_PAGE_SIZE);
	must(pagemap_read(canary, 1, &pfn));
	nic->reader->canary = pfn * RING_PAGE_SIZE;
}

void canary_check(const struct nic *nic)
{
	u8 *canary = canary_map(nic);
	u32 changed = 0;
	u64 pfn;

	for (u32 i = 0; i < RING_PAGE_SIZE; i++)
		changed += canary[i] != CANARY;
	must(pagemap_read(canary, 1, &pfn));
	fact("canary", "changed=%u moved=%d", changed,
	     pfn * RING_PAGE_SIZE != nic->reader->canary);
}

/* The frames that will be missing are told, so that all others have to be there. */
void unmap_some_descriptors(const struct nic *nic)
{
	/* Those that the device may be using at this moment are left alone. */
	u32 head = igb_rx_head(&nic->igb), waiting = (head + COUNT - nic->reader->next) % COUNT;
	u64 first = nic->reader->sequence + waiting + UNMAPPED_FIRST;
	u32 count = (COUNT / 2 - UNMAPPED_FIRST) / UNMAPPED_STEP;
	bool interrupts = param_u64("intremap", 0);

	if (count > UNMAPPED_MOST)
		count = UNMAPPED_MOST;
	for (u32 i = 0; i < count; i++)
		reader_descriptor(nic->memory, (head + UNMAPPED_FIRST + i * UNMAPPED_STEP) % COUNT)
			->read.packet = interrupts && i % 2 ? INTERRUPTS : nic->reader->canary;
	fact("unmapped.iova", "0x%llx", nic->reader->canary);
	if (interrupts)
		fact("unmapped.interrupts", "0x%llx", INTERRUPTS);
	if (!param_control("unmapped-undeclared"))
		fact("unmapped.frames", "%u from %llu, each %llu", count, first, UNMAPPED_STEP);
}
