// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest has its own small RAM, which no device may write to. Ring and buffers are
 * further memory of it, at guest-physical addresses that are the device's IOVAs, and the
 * device's registers are a memslot, too: it needs nobody to drive the device.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assigned.h"
#include "guest_map.h"
#include "report.h"
#include "vm_state.h"

#define RAM_SIZE (16ull << 20)
#define RAM_PAGES (RAM_SIZE / GUEST_PAGE_SIZE)

#define PAGE_TABLE(n) (GUEST_PAGE_TABLES + (n) * 4096)
#define PTE_PRESENT_WRITABLE 0x3
#define PTE_UNCACHED 0x18
#define PTE_LARGE 0x80

static struct vmm vmm;
static struct vm_state *state;
static int ram_fd, state_fd;

static void add_memslot(u32 slot, u64 gpa, volatile void *memory, u64 size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (u64)memory,
	};

	must(sys(ioctl(vmm.vm_fd, KVM_SET_USER_MEMORY_REGION, &region)));
}

/* After slot 0, which is the guest's own RAM. */
static void add_memslots(const struct nic *nic)
{
	u32 slot = 1;

	add_memslot(slot++, GUEST_BAR_GPA, nic->igb.bar0, IGB_BAR0_SIZE);
	add_memslot(slot++, IOVA, nic->memory, BUFFERS);
	for (u32 i = 0; i < CHUNKS; i++)
		add_memslot(slot++, chunk_iova(nic, i), nic->memory + BUFFERS + i * CHUNK, CHUNK);
}

/* vmm_load_guest() has made page tables for the RAM, in the first three pages. */
static void map_assigned(const struct nic *nic)
{
	u64 *pdpt = (u64 *)(vmm.ram + PAGE_TABLE(1)), *pd = (u64 *)(vmm.ram + PAGE_TABLE(3));

	pdpt[GUEST_RING >> 30] = PAGE_TABLE(3) | PTE_PRESENT_WRITABLE;
	pd[0] = IOVA | PTE_PRESENT_WRITABLE | PTE_LARGE;
	for (u32 i = 0; i < CHUNKS; i++)
		pd[1 + i] = chunk_iova(nic, i) | PTE_PRESENT_WRITABLE | PTE_LARGE;
	pd[511] = GUEST_BAR_GPA | PTE_PRESENT_WRITABLE | PTE_UNCACHED | PTE_LARGE;
}

/* From here on the guest reads what comes. */
void assigned_start(struct nic *nic)
{
	/* Compaction leaves those alone; each small page of a running guest would cost it dearly. */
	allow_large_pages();
	ram_fd = memfd_new("guest-ram", RAM_SIZE);
	vmm_create(&vmm, ram_fd, ram_map(ram_fd, RAM_SIZE), RAM_SIZE, 1);
	ram_populate(vmm.ram, RAM_SIZE);
	add_memslots(nic);
	vmm_load_guest(&vmm, nic->reader->nonce, RAM_SIZE);
	map_assigned(nic);
	vmm_prefault(&vmm);
	vmm_start_threads(&vmm);
	report_guest_options(&vmm);
	nic->guest = true;
	nic->reader->active = 1;
	state = vm_state_create(&vmm, nic->reader->nonce, &state_fd);
	vmm_run(&vmm);
}

void assigned_preserve(const struct nic *nic, int session)
{
	if (!nic->guest)
		return;
	must(luo_preserve_fd(session, ram_fd, TOKEN_GUEST_RAM));
	must(luo_preserve_fd(session, state_fd, TOKEN_GUEST_STATE));
}

void assigned_pause(const struct nic *nic)
{
	if (!nic->guest)
		return;
	vmm_compare_clocks(&vmm);
	vmm_pause_for_capture(&vmm);
	state->paused_at = read_counter();
	vm_capture(&vmm, state);
	digest_pages(vmm.ram, RAM_PAGES, vm_state_digests(state));
	report_paused_guest(&vmm, state);
}

/* True when there is all of the guest, or when there is to be none. */
bool assigned_retrieve(const struct nic *nic, int session)
{
	struct stat stat;

	if (!param_u64("guest", 0))
		return true;
	ram_fd = luo_retrieve_fd(session, TOKEN_GUEST_RAM);
	fact("retrieve.guest_ram", "%d", ram_fd < 0 ? ram_fd : 0);
	state_fd = luo_retrieve_fd(session, TOKEN_GUEST_STATE);
	fact("retrieve.guest_state", "%d", state_fd < 0 ? state_fd : 0);
	if (ram_fd < 0 || state_fd < 0)
		return false;
	must(sys(fstat(state_fd, &stat)));
	state = vm_state_map(state_fd, stat.st_size);
	return !vm_state_refused(state, stat.st_size, param_nonce()) && nic->device >= 0;
}

/* The guest needs the device's registers, so the device has been attached before. */
void assigned_go_on(struct nic *nic)
{
	u64 *digests = must_be_memory(calloc(RAM_PAGES, sizeof(u64)));
	struct refused_registers refused = {};

	if (!param_u64("guest", 0))
		return;
	vmm_create(&vmm, ram_fd, ram_map(ram_fd, RAM_SIZE), RAM_SIZE, state->nr_vcpus);
	digest_pages(vmm.ram, RAM_PAGES, digests);
	report_ram_difference(vm_state_digests(state), digests, RAM_PAGES);
	free(digests);
	add_memslots(nic);
	vm_restore(&vmm, state, &refused);
	vmm_prefault(&vmm);
	vmm_start_threads(&vmm);
	report_loaded_guest(&vmm);
	report_refused_registers(&refused);
	nic->guest = true;
	vmm_run(&vmm);
}

/* What the guest itself, verifying all its RAM, has found to be wrong. */
void assigned_end(const struct nic *nic)
{
	u64 at_resume[GUEST_MAX_VCPUS], at_finish[GUEST_MAX_VCPUS], at_end[GUEST_MAX_VCPUS];

	if (!nic->guest)
		return;
	at_resume[0] = vcpu_state_steps(&state->vcpu[0]);
	vmm_read_counters(&vmm, at_finish);
	vmm_wait_sweep(&vmm, at_finish, vmm_sweep_timeout_ms(&vmm));
	vmm_compare_clocks(&vmm);
	vmm_pause(&vmm);
	vmm_read_counters(&vmm, at_end);
	report_resumed_guest(&vmm, state, at_resume, at_finish, at_end);
}
