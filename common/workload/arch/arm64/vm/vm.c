// SPDX-License-Identifier: GPL-2.0-only
/* A VM as arm64 has it, and a vCPU that is about to execute the guest's first instruction. */
#include <sys/ioctl.h>

#include "guest_map.h"
#include "vmm.h"

#define TABLE			0x3ull
#define BLOCK			0x1ull
#define BLOCK_NORMAL		(BIT_ULL(10) | 3 << 8 | 0 << 2 | BLOCK)
#define BLOCK_DEVICE		(BIT_ULL(54) | BIT_ULL(53) | BIT_ULL(10) | 1 << 2 | BLOCK)
#define DEVICES_INDEX		511

/* Arm ARM, D24.2; attribute 0 is normal memory, 1 is device memory. */
#define SCTLR_EL1		ARM64_SYS_REG(3, 0, 1, 0, 0)
#define SCTLR_RES1_I_C_M	(0x30d00800 | BIT(12) | BIT(2) | BIT(0))
#define CPACR_EL1		ARM64_SYS_REG(3, 0, 1, 0, 2)
#define CPACR_FPEN		(3 << 20)
#define TTBR0_EL1		ARM64_SYS_REG(3, 0, 2, 0, 0)
#define TCR_EL1			ARM64_SYS_REG(3, 0, 2, 0, 2)
/* 39 bits of virtual address from 0 on and none at the top, 4 KiB, 40 bits of physical address */
#define TCR			(2ull << 32 | BIT_ULL(23) | 3 << 12 | 1 << 10 | 1 << 8 | 25)
#define MAIR_EL1		ARM64_SYS_REG(3, 0, 10, 2, 0)
#define MAIR			0x00ffull
/* EL1 with its own stack pointer; debug exceptions, SError, IRQ and FIQ masked */
#define PSTATE			0x3c5

u64 low_ram(u64 size)
{
	return size;
}

u64 ram_to_gpa(u64 offset)
{
	return GUEST_RAM_BASE + offset;
}

void arch_create_vm(struct vmm *vmm)
{
	must_be(sys(ioctl(vmm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COUNTER_OFFSET)) > 0,
		"this KVM cannot set the guest's counter");
}

static bool has(const struct vmm *vmm, unsigned int extension)
{
	return sys(ioctl(vmm->vm_fd, KVM_CHECK_EXTENSION, extension)) > 0;
}

/* All that this CPU's KVM can give a guest, but for a PMU and nesting. */
void vcpu_features(const struct vmm *vmm, struct kvm_vcpu_init *init)
{
	must(sys(ioctl(vmm->vm_fd, KVM_ARM_PREFERRED_TARGET, init)));
	init->features[0] |= BIT(KVM_ARM_VCPU_PSCI_0_2);
	if (has(vmm, KVM_CAP_ARM_SVE))
		init->features[0] |= BIT(KVM_ARM_VCPU_SVE);
	if (has(vmm, KVM_CAP_ARM_PTRAUTH_ADDRESS) && has(vmm, KVM_CAP_ARM_PTRAUTH_GENERIC))
		init->features[0] |= BIT(KVM_ARM_VCPU_PTRAUTH_ADDRESS) |
				     BIT(KVM_ARM_VCPU_PTRAUTH_GENERIC);
}

void arch_create_vcpu(struct vcpu *vcpu)
{
	struct kvm_vcpu_init init;
	int sve = KVM_ARM_VCPU_SVE;

	vcpu_features(vcpu->vmm, &init);
	must(sys(ioctl(vcpu->fd, KVM_ARM_VCPU_INIT, &init)));
	if (init.features[0] & BIT(KVM_ARM_VCPU_SVE))
		must(sys(ioctl(vcpu->fd, KVM_ARM_VCPU_FINALIZE, &sve)));
}

void arch_create_irqchip(struct vmm *vmm)
{
	vgic_create(vmm);
}

/* Virtual address = offset into the RAM memfd; the GIC is in the last GiB. */
static void build_page_tables(struct vmm *vmm)
{
	u64 *top = (u64 *)(vmm->ram + GUEST_PAGE_TABLES), *middle = top + 512;
	u64 blocks = vmm->ram_size / LARGE_PAGE_SIZE;

	must_be(GUEST_PAGE_TABLES + 4096 + blocks * 8 <= GUEST_PAGE_TABLES_END,
		"%llu bytes of RAM are too many", vmm->ram_size);
	for (u64 i = 0; i * 512 < blocks; i++)
		top[i] = ram_to_gpa(GUEST_PAGE_TABLES + 0x1000 + i * 0x1000) | TABLE;
	for (u64 i = 0; i < blocks; i++)
		middle[i] = ram_to_gpa(i * LARGE_PAGE_SIZE) | BLOCK_NORMAL;
	top[DEVICES_INDEX] = BLOCK_DEVICE;
}

void arch_load_vm(struct vmm *vmm)
{
	struct kvm_arm_counter_offset offset = { .counter_offset = read_counter() };

	build_page_tables(vmm);
	/* The guest's counter starts near 0: an offset that is lost will be seen. */
	vmm->counter_offset = -offset.counter_offset;
	must(sys(ioctl(vmm->vm_fd, KVM_ARM_SET_COUNTER_OFFSET, &offset)));
}

u64 guest_counter_khz(struct vcpu *vcpu)
{
	(void)vcpu;
	return counter_khz();
}

bool arch_vcpu_interruptible(const struct vcpu *vcpu)
{
	(void)vcpu;
	return true;
}

static void set_register(struct vcpu *vcpu, u64 id, u64 value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (u64)&value };

	must(sys(ioctl(vcpu->fd, KVM_SET_ONE_REG, &reg)));
}

void arch_load_vcpu(struct vcpu *vcpu)
{
	u64 block = (u64)vcpu->block->self;

	set_register(vcpu, MAIR_EL1, MAIR);
	set_register(vcpu, TCR_EL1, TCR);
	set_register(vcpu, TTBR0_EL1, ram_to_gpa(GUEST_PAGE_TABLES));
	set_register(vcpu, CPACR_EL1, CPACR_FPEN);
	set_register(vcpu, SCTLR_EL1, SCTLR_RES1_I_C_M);
	set_register(vcpu, CORE_REGISTER(regs.pstate), PSTATE);
	set_register(vcpu, CORE_REGISTER(regs.pc), GUEST_CODE);
	set_register(vcpu, CORE_REGISTER(regs.regs[0]), block);
	set_register(vcpu, CORE_REGISTER(sp_el1),
		     block + offsetof(struct guest_vcpu, stack) + sizeof(vcpu->block->stack));
}

/*
 * KVM/arm64 has no KVM_PRE_FAULT_MEMORY (Linux 7.3): the first access to each
 * block of the guest's memory is an exit.
 */
void vmm_prefault(struct vmm *vmm)
{
	(void)vmm;
}
