/* SPDX-License-Identifier: GPL-2.0-only */
/* The state of a VM as KVM gives it on arm64: registers by KVM_GET_REG_LIST, and the vGIC's. */
#ifndef VM_ARCH_H
#define VM_ARCH_H

#define VM_STATE_REGISTERS	1024
/* With SVE of 2048 bits there are 32 registers of 256 bytes, and all others take half of that. */
#define VM_STATE_REGISTER_BYTES	32768

/* The fact that counts what vm_restore() could not set. */
#define REFUSED_FACT		"restore.registers_refused"

#define VGIC_IRQS		64
#define VGIC_DISTRIBUTOR_WORDS	96
#define VGIC_REDISTRIBUTOR_WORDS 20
#define VGIC_CPU_REGISTERS	9

struct vm_devices {
	u32 distributor[VGIC_DISTRIBUTOR_WORDS];
	/* levels of the shared lines */
	u32 level;
};

struct vcpu_state {
	struct kvm_vcpu_init init;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	u64 counter_offset;
	u32 redistributor[VGIC_REDISTRIBUTOR_WORDS];
	u32 level;
	u32 registers;
	u64 cpu_interface[VGIC_CPU_REGISTERS];
	u64 id[VM_STATE_REGISTERS];
	/* the values one after the other, each of the size that its id says */
	u8 value[VM_STATE_REGISTER_BYTES] __aligned(16);
};

/* vgic.c */
void vgic_create(struct vmm *vmm);
void vgic_capture(struct vmm *vmm, struct vm_devices *devices, struct vcpu_state *vcpus);
void vgic_restore(struct vmm *vmm, const struct vm_devices *devices,
		  const struct vcpu_state *vcpus);

/* vm.c */
void vcpu_features(const struct vmm *vmm, struct kvm_vcpu_init *init);

/* vcpu_state.c: where the value of a register is; NULL where the state has none of that id */
void *vcpu_state_register(struct vcpu_state *vcpu, u64 id);
void *vcpu_state_vreg(struct vcpu_state *vcpu, unsigned int number);

#define CORE_REGISTER(name)							\
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))
#define VECTOR_REGISTER(number)							\
	(KVM_REG_ARM64 | KVM_REG_SIZE_U128 | KVM_REG_ARM_CORE |			\
	 KVM_REG_ARM_CORE_REG(fp_regs.vregs[number]))

/* The registers that the guest has for its whole life: guest_arch.h */
#define GUEST_COUNTER_REGISTER	CORE_REGISTER(regs.regs[21])
#define GUEST_CHECKSUM_REGISTER	CORE_REGISTER(regs.regs[22])

#endif
