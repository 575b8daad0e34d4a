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

#define VM_STATE_CPUID_ENTRIES	128
#define VM_STATE_MSRS		512
#define VM_STATE_XSAVE_SIZE	16384

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xcrs xcrs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	u64 tsc_offset;
	u32 msrs;
	u32 cpuid_entries;
	struct kvm_msr_entry msr[VM_STATE_MSRS];
	struct kvm_cpuid_entry2 cpuid[VM_STATE_CPUID_ENTRIES];
	u8 xsave[VM_STATE_XSAVE_SIZE] __aligned(64);
};

struct vm_state {
	u64 magic;
	u64 layout;
	u64 nonce;
	u64 state_size;
	u64 ram_size;
	u64 pages;
	u64 nr_vcpus;
	u64 paused_tsc;
	struct kvm_irqchip irqchip[3];
	struct kvm_clock_data clock;
	struct vcpu_state vcpu[GUEST_MAX_VCPUS];
};

struct vm_state *vm_state_create(const struct vmm *vmm, u64 nonce, int *fd);
struct vm_state *vm_state_map(int fd, u64 size);
u64 *vm_state_digests(struct vm_state *state);
u64 *vm_state_pfns(struct vm_state *state);
const char *vm_state_refused(const struct vm_state *state, u64 size, u64 nonce);

/* What a KVM_SET_MSRS did not take; index of the MSR each. */
struct refused_msrs {
	unsigned int count;
	u32 index[VM_STATE_MSRS];
};

/* vcpu_state.c */
void vm_capture(struct vmm *vmm, struct vm_state *state);
void vm_restore(struct vmm *vmm, const struct vm_state *state, struct refused_msrs *refused);
u64 *vcpu_state_ymm(struct vcpu_state *vcpu, unsigned int number, bool upper);
void vcpu_state_vector(const struct vcpu_state *vcpu, struct guest_vector *vector);

#endif
