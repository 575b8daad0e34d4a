/* SPDX-License-Identifier: GPL-2.0-only */
/* The state of a VM as KVM gives it on x86. */
#ifndef VM_ARCH_H
#define VM_ARCH_H

#define VM_STATE_CPUID_ENTRIES	128
#define VM_STATE_REGISTERS	512
#define VM_STATE_XSAVE_SIZE	16384

/* The fact that counts what vm_restore() could not set. */
#define REFUSED_FACT		"restore.msrs_refused"

/* Two PICs and the IOAPIC */
#define NR_IRQCHIPS		3

struct vm_devices {
	struct kvm_irqchip irqchip[NR_IRQCHIPS];
	struct kvm_clock_data clock;
};

/* What KVM gives back of a state that the guest is not in: see tried.c. */
struct vcpu_tried {
	struct kvm_sregs2 sregs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp_state;
};

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xcrs xcrs;
	struct kvm_vcpu_events events;
	struct vcpu_tried tried;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	u64 tsc_offset;
	/* as the guest must have counted them after the restore: see pending.c */
	u64 pending;
	u64 injected;
	u64 routed;
	u64 nmis;
	u32 msrs;
	u32 cpuid_entries;
	struct kvm_msr_entry msr[VM_STATE_REGISTERS];
	struct kvm_cpuid_entry2 cpuid[VM_STATE_CPUID_ENTRIES];
	u8 xsave[VM_STATE_XSAVE_SIZE] __aligned(64);
};

/* @request: KVM_GET_DEVICE_ATTR or KVM_SET_DEVICE_ATTR; guest's TSC = host's + offset */
void vcpu_tsc_offset(struct vcpu *vcpu, unsigned long request, u64 *offset);

struct vm_state;
struct refused_registers;

void vcpu_capture(struct vmm *vmm, struct vcpu *vcpu, struct vcpu_state *state);
void irqchips_capture(struct vmm *vmm, struct kvm_irqchip chips[NR_IRQCHIPS]);

/* tried.c */
void vcpu_try_first(struct vcpu *vcpu, struct vcpu_state *state);
void vcpu_try(struct vcpu *vcpu, const struct vcpu_state *own, const struct vcpu_tried *tried,
	      struct vcpu_tried *read_back);
const char *vcpu_not_taken(const struct vcpu_state *state);

/* pending.c */
void leave_interrupts_pending(struct vmm *vmm, struct vm_state *state);

/* read_back.c: what KVM does not give back as it was given to it */
void report_unlike(struct vmm *vmm, const struct vm_state *state,
		   const struct refused_registers *refused, u64 began);

u64 *vcpu_state_ymm(struct vcpu_state *vcpu, unsigned int number, bool upper);

#endif
