/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The state memfd: all that the VMM in the incoming kernel knows of the VM.
 * Written through its mapping while it is preserved already; LUO keeps what is
 * in it at the moment of the kexec.
 *
 *	struct vm_state, up to a page
 *	u64 digest[pages]	content of each page while the guest is paused
 *	u64 pfn[pages]		where each page was in the outgoing kernel
 */
#ifndef VM_STATE_H
#define VM_STATE_H

#include "vmm.h"

#define VM_STATE_MAGIC		0x314d56745354534bull
#define VM_STATE_LAYOUT		1

struct vm_state {
	u64 magic;
	u64 layout;
	u64 nonce;
	u64 state_size;
	u64 ram_size;
	u64 pages;
	u64 nr_vcpus;
	u64 paused_at;
	struct vm_devices devices;
	struct vcpu_state vcpu[GUEST_MAX_VCPUS];
};

struct vm_state *vm_state_create(const struct vmm *vmm, u64 nonce, int *fd);
struct vm_state *vm_state_map(int fd, u64 size);
u64 *vm_state_digests(struct vm_state *state);
u64 *vm_state_pfns(struct vm_state *state);
const char *vm_state_refused(const struct vm_state *state, u64 size, u64 nonce);

/* Registers that KVM did not take; KVM's number of each. */
struct refused_registers {
	unsigned int count;
	u64 id[VM_STATE_REGISTERS];
};

/* arch/MACHINE/vm/vcpu_state.c */
void vm_capture(struct vmm *vmm, struct vm_state *state);
void vm_restore(struct vmm *vmm, const struct vm_state *state, struct refused_registers *refused);

/* What the guest holds in registers: steps, checksum, vectors; see guest_sweep.c */
u64 vcpu_state_steps(const struct vcpu_state *vcpu);
u64 vcpu_state_checksum(const struct vcpu_state *vcpu);
void vcpu_state_vector(const struct vcpu_state *vcpu, struct guest_vector *vector);
/* The guest's counter = the machine's + this. */
u64 vcpu_state_counter_offset(const struct vcpu_state *vcpu);
/* These registers, read back from KVM: nothing else of @state is set. */
void vcpu_state_read_back(struct vcpu *vcpu, struct vcpu_state *state);

/* arch/MACHINE/vm/: interrupts that the guest must have got since, and has not */
void report_pending(const struct vmm *vmm, const struct vm_state *state);

/* arch/MACHINE/vm/corrupt.c: what the controls of that name ask for */
void corrupt_state(struct vm_state *state);

#endif
