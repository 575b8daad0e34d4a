// SPDX-License-Identifier: GPL-2.0-only
/* A VM as x86 has it, and a vCPU that is about to execute the guest's first instruction. */
#include <sys/ioctl.h>

#include "vm_state.h"

/* Guest-physical memory has a hole for devices from 3 GiB to 4 GiB, as in a PC. */
#define LOW_RAM_END		(3ull << 30)
#define HIGH_RAM_START		(4ull << 30)

/* KVM_SET_TSS_ADDR and the identity map need pages of their own in the hole. */
#define TSS_ADDRESS		0xfffbd000
#define IDENTITY_MAP_ADDRESS	0xfffbc000

#define PTE_PRESENT_WRITABLE	0x3
#define PTE_LARGE		0x80

#define CR0_PE_MP_ET_NE_WP_PG	0x80010033
#define CR4_PAE_OSFXSR_OSXMMEXCPT 0x620
#define EFER_SCE_LME_LMA_NX	0xd01

#define GUEST_GDT		0x1000
#define GUEST_CODE_SELECTOR	0x08
#define GUEST_DATA_SELECTOR	0x10
#define GUEST_TSS_SELECTOR	0x18
#define GUEST_LDT_SELECTOR	0x20
/* In a page that the guest does not use otherwise; neither is ever read. */
#define GUEST_TSS		0x1100
#define GUEST_LDT		0x1200

#define NR_PICS			2
#define IOAPIC_MASKED		BIT(16)

u64 low_ram(u64 size)
{
	return size < LOW_RAM_END ? size : LOW_RAM_END;
}

u64 ram_to_gpa(u64 offset)
{
	return offset < LOW_RAM_END ? offset : offset - LOW_RAM_END + HIGH_RAM_START;
}

void arch_create_vm(struct vmm *vmm)
{
	u64 identity_map = IDENTITY_MAP_ADDRESS;

	must(sys(ioctl(vmm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map)));
	must(sys(ioctl(vmm->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS)));
	must(sys(ioctl(vmm->vm_fd, KVM_CREATE_IRQCHIP, 0)));
	/*
	 * 0 is the rate that the kernel knows by now. Without an invariant TSC
	 * (QEMU's TCG has none) KVM's default is the one of early boot; where
	 * the later calibration is 250 ppm off, KVM either warns or drags the
	 * guest's TSC after its own idea of time.
	 */
	must(sys(ioctl(vmm->vm_fd, KVM_SET_TSC_KHZ, 0)));
}

void arch_create_vcpu(struct vcpu *vcpu)
{
	(void)vcpu;
}

/* KVM_CREATE_IRQCHIP comes before the first vCPU. */
void arch_create_irqchip(struct vmm *vmm)
{
	(void)vmm;
}

/* Virtual address = offset into the RAM memfd. */
static void build_page_tables(struct vmm *vmm)
{
	u64 *pml4 = (u64 *)(vmm->ram + GUEST_PAGE_TABLES);
	u64 *pdpt = pml4 + 512, *pd = pdpt + 512;
	u64 large_pages = vmm->ram_size / LARGE_PAGE_SIZE;
	u64 tables_end = GUEST_PAGE_TABLES + 2 * 4096 + large_pages * 8;

	must_be(tables_end <= GUEST_PAGE_TABLES_END, "%llu bytes of RAM are too many",
		vmm->ram_size);
	pml4[0] = (GUEST_PAGE_TABLES + 0x1000) | PTE_PRESENT_WRITABLE;
	for (u64 i = 0; i * 512 < large_pages; i++)
		pdpt[i] = (GUEST_PAGE_TABLES + 0x2000 + i * 0x1000) | PTE_PRESENT_WRITABLE;
	for (u64 i = 0; i < large_pages; i++)
		pd[i] = ram_to_gpa(i * LARGE_PAGE_SIZE) | PTE_PRESENT_WRITABLE | PTE_LARGE;
}

static void build_gdt(struct vmm *vmm)
{
	u64 *gdt = (u64 *)(vmm->ram + GUEST_GDT);

	gdt[GUEST_CODE_SELECTOR / 8] = 0x00af9b000000ffff;
	gdt[GUEST_DATA_SELECTOR / 8] = 0x00cf93000000ffff;
}

/*
 * Nothing is connected to them: whatever is masked keeps what it is given. So a
 * restore that leaves something out is seen when they are read back.
 */
static void fill_irqchips(struct vmm *vmm)
{
	struct kvm_irqchip chips[NR_IRQCHIPS] = {};

	irqchips_capture(vmm, chips);
	for (u32 chip = 0; chip < NR_PICS; chip++) {
		chips[chip].chip.pic.imr = 0xff;
		chips[chip].chip.pic.irq_base = 0x60 + 0x10 * chip;
		chips[chip].chip.pic.auto_eoi = 1;
	}
	for (u32 pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++) {
		chips[NR_PICS].chip.ioapic.redirtbl[pin].bits = IOAPIC_MASKED;
		chips[NR_PICS].chip.ioapic.redirtbl[pin].fields.vector = 0x80 + pin;
		chips[NR_PICS].chip.ioapic.redirtbl[pin].fields.dest_id = pin + 1;
	}
	for (u32 chip = 0; chip < NR_IRQCHIPS; chip++)
		must(sys(ioctl(vmm->vm_fd, KVM_SET_IRQCHIP, &chips[chip])));
}

void arch_load_vm(struct vmm *vmm)
{
	build_page_tables(vmm);
	build_gdt(vmm);
	fill_irqchips(vmm);
	/* The guest's TSC starts near 0: an offset that is lost will be seen. */
	vmm->counter_offset = -read_counter();
}

u64 guest_counter_khz(struct vcpu *vcpu)
{
	return must(sys(ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0)));
}

static void set_cpuid(struct vmm *vmm, struct vcpu *vcpu)
{
	union {
		struct kvm_cpuid2 list;
		u8 space[sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)];
	} cpuid = { .list.nent = 256 };
	u32 id = vcpu->block->id;

	must(sys(ioctl(vmm->kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid)));
	for (u32 i = 0; i < cpuid.list.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &cpuid.list.entries[i];

		/* These hold the APIC id of the CPU that asked. */
		if (entry->function == 0x1)
			entry->ebx = (entry->ebx & 0x00ffffff) | id << 24;
		else if (entry->function == 0xb)
			entry->edx = id;
	}
	must(sys(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid)));
}

void vcpu_tsc_offset(struct vcpu *vcpu, unsigned long request, u64 *offset)
{
	struct kvm_device_attr attribute = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (u64)offset,
	};

	must(sys(ioctl(vcpu->fd, request, &attribute)));
}

static struct kvm_segment segment(u16 selector, u8 type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.l = code,
		.db = !code,
		.g = 1,
	};
}

static void set_first_registers(struct vcpu *vcpu)
{
	u64 block = (u64)vcpu->block->self;
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = {
		.rip = GUEST_CODE,
		.rflags = 0x2,
		.rdi = block,
		.rsp = block + offsetof(struct guest_vcpu, stack) +
		       sizeof(vcpu->block->stack),
	};
	struct kvm_sregs sregs;

	must(sys(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs)));
	sregs.cs = segment(GUEST_CODE_SELECTOR, 0xb, true);
	sregs.ds = segment(GUEST_DATA_SELECTOR, 0x3, false);
	sregs.es = sregs.ds;
	sregs.fs = sregs.ds;
	sregs.gs = sregs.ds;
	sregs.ss = sregs.ds;
	sregs.tr = (struct kvm_segment){
		.base = GUEST_TSS,
		.limit = 0x67,
		.selector = GUEST_TSS_SELECTOR,
		.type = 0xb,
		.present = 1,
	};
	sregs.ldt = (struct kvm_segment){
		.base = GUEST_LDT,
		.limit = 0x3f,
		.selector = GUEST_LDT_SELECTOR,
		.type = 0x2,
		.present = 1,
	};
	sregs.gdt.base = GUEST_GDT;
	sregs.gdt.limit = 4 * 8 - 1;
	sregs.cr0 = CR0_PE_MP_ET_NE_WP_PG;
	sregs.cr3 = GUEST_PAGE_TABLES;
	sregs.cr4 = CR4_PAE_OSFXSR_OSXMMEXCPT;
	sregs.efer = EFER_SCE_LME_LMA_NX;
	must(sys(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_REGS, &regs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable)));
}

void arch_load_vcpu(struct vcpu *vcpu)
{
	set_cpuid(vcpu->vmm, vcpu);
	set_first_registers(vcpu);
	vcpu_tsc_offset(vcpu, KVM_SET_DEVICE_ATTR, &vcpu->vmm->counter_offset);
}

static void prefault_range(struct vcpu *vcpu, u64 gpa, u64 size)
{
	struct kvm_pre_fault_memory range = { .gpa = gpa, .size = size };

	/* EINTR and EAGAIN leave in @range what is still to be done. */
	while (range.size) {
		long ret = sys(ioctl(vcpu->fd, KVM_PRE_FAULT_MEMORY, &range));

		if (ret < 0 && ret != -EINTR && ret != -EAGAIN)
			bail("KVM_PRE_FAULT_MEMORY at 0x%llx: %s", range.gpa, errno_name(ret));
	}
}

/*
 * All of RAM in the nested page tables before the first KVM_RUN. On an emulated
 * CPU an exit costs 100 us, which makes 6 s of faults for 256 MiB.
 */
void vmm_prefault(struct vmm *vmm)
{
	u64 low = vmm->ram_size < LOW_RAM_END ? vmm->ram_size : LOW_RAM_END;

	prefault_range(&vmm->vcpus[0], 0, low);
	if (vmm->ram_size > low)
		prefault_range(&vmm->vcpus[0], HIGH_RAM_START, vmm->ram_size - low);
}
