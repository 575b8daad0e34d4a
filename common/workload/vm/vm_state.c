// SPDX-License-Identifier: GPL-2.0-only
/* The memfd that a VM's state travels in. */
#include <sys/mman.h>

#include "vm_state.h"

static u64 page_align(u64 size)
{
	return (size + GUEST_PAGE_SIZE - 1) & ~(u64)(GUEST_PAGE_SIZE - 1);
}

u64 *vm_state_digests(struct vm_state *state)
{
	return (u64 *)((u8 *)state + page_align(sizeof(*state)));
}

u64 *vm_state_pfns(struct vm_state *state)
{
	return vm_state_digests(state) + state->pages;
}

static u64 vm_state_size(u64 ram_size)
{
	u64 pages = ram_size / GUEST_PAGE_SIZE;

	return page_align(sizeof(struct vm_state)) + page_align(2 * pages * sizeof(u64));
}

struct vm_state *vm_state_map(int fd, u64 size)
{
	void *state = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must_be(state != MAP_FAILED, "vm-state: %s", errno_name(-errno));
	return state;
}

/* A state memfd for this VM, at *@fd; all of it is there before the guest is paused. */
struct vm_state *vm_state_create(const struct vmm *vmm, u64 nonce, int *fd)
{
	u64 size = vm_state_size(vmm->ram_size);
	struct vm_state *state;

	*fd = memfd_new("vm-state", size);
	state = vm_state_map(*fd, size);
	must(sys(madvise(state, size, MADV_POPULATE_WRITE)));
	state->magic = VM_STATE_MAGIC;
	state->layout = VM_STATE_LAYOUT;
	state->nonce = nonce;
	state->state_size = size;
	state->ram_size = vmm->ram_size;
	state->pages = vmm->ram_size / GUEST_PAGE_SIZE;
	state->nr_vcpus = vmm->nr_vcpus;
	return state;
}

/* Why a state memfd of @size bytes cannot be this run's, or NULL. */
const char *vm_state_refused(const struct vm_state *state, u64 size, u64 nonce)
{
	if (size < sizeof(*state) || state->magic != VM_STATE_MAGIC)
		return "magic";
	if (state->layout != VM_STATE_LAYOUT)
		return "layout";
	if (state->nonce != nonce)
		return "nonce";
	if (state->state_size != size || state->pages != state->ram_size / GUEST_PAGE_SIZE ||
	    vm_state_size(state->ram_size) != size || !state->nr_vcpus ||
	    state->nr_vcpus > GUEST_MAX_VCPUS)
		return "size";
	return NULL;
}
